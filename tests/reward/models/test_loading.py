"""The reward model reads the last token of the answer, however it is padded, held or loaded."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alignment.data.template import Template
from alignment.errors import DataError, ModelError
from alignment.policy.tokenizer import load_tokenizer
from reward.models.batches import encode, pad
from reward.models.loading import load_reward_model, padding_token, require_score_head, score_sequences
from tests.models import make_model, make_tokenizer, save_tiny_model
from tests.reward.toy import rankings, recipe


@pytest.fixture
def pad_is_eos_dir(tmp_path: Path) -> Path:
    """A model whose tokenizer pads with its EOS, as those of many causal models do."""
    path = tmp_path / "pad_is_eos"
    tokenizer = make_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    make_model(tokenizer).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def load(path: Path, **keys: Any) -> tuple[Any, Any, Template]:
    torch.manual_seed(0)
    given = recipe(path, Path("unused"), **keys)
    tokenizer = load_tokenizer(given)
    template = Template(tokenizer)
    model = load_reward_model(given, tokenizer, template.stop_token_ids, trainable=True, peft=given)
    return model.eval(), tokenizer, template


def sequences(template: Template) -> list[list[int]]:
    return [encode(template, row.prompt, answer)[0] for row in rankings(2) for answer in row.responses]


def scores(model: Any, rows: list[list[int]], pad_token_id: int) -> list[float]:
    with torch.no_grad():
        return score_sequences(model, **pad(rows, pad_token_id)).tolist()  # type: ignore[no-any-return]


def test_score_is_the_head_on_the_last_tokens_hidden_state(tiny_model_dir: Path) -> None:
    model, tokenizer, template = load(tiny_model_dir, peft_method="full")
    rows = sequences(template)
    assert all(ids[-1] == tokenizer.eos_token_id for ids in rows)
    with torch.no_grad():
        hidden = [model.model(torch.tensor([ids])).last_hidden_state[0, -1] for ids in rows]
        expected = [float(state @ model.score.weight[0]) for state in hidden]
    assert scores(model, rows, tokenizer.pad_token_id) == pytest.approx(expected, abs=1e-6)
    assert len({round(score, 4) for score in expected}) > 1


@pytest.mark.parametrize("peft_method", ["full", "lora"])
def test_where_pad_is_eos_the_stop_token_is_still_read(pad_is_eos_dir: Path, peft_method: str) -> None:
    model, tokenizer, template = load(pad_is_eos_dir, peft_method=peft_method)
    eos = tokenizer.eos_token_id
    assert tokenizer.pad_token_id != eos
    rows = sequences(template)
    together = scores(model, rows, tokenizer.pad_token_id)
    alone = [scores(model, [ids], tokenizer.pad_token_id)[0] for ids in rows]
    assert together == pytest.approx(alone, abs=1e-5)
    # the stop token counts: without it the score is another
    without_stop = scores(model, [ids[:-1] for ids in rows], tokenizer.pad_token_id)
    assert max(abs(a - b) for a, b in zip(alone, without_stop, strict=True)) > 1e-4


def test_a_full_model_scores_the_same_in_plain_transformers(pad_is_eos_dir: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, tokenizer, template = load(pad_is_eos_dir, peft_method="full")
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    read = AutoTokenizer.from_pretrained(tmp_path / "saved")
    rows = sequences(template)
    expected = scores(model, rows, tokenizer.pad_token_id)
    batch = read.pad({"input_ids": rows}, return_tensors="pt", padding_side="right")
    with torch.no_grad():
        assert plain(**batch).logits[:, 0].tolist() == pytest.approx(expected, abs=1e-6)
        unpadded = [plain(input_ids=torch.tensor([ids])).logits.item() for ids in rows]
    assert unpadded == pytest.approx(expected, abs=1e-5)
    assert plain.config.num_labels == 1


def test_an_adapter_scores_the_same_in_plain_peft(pad_is_eos_dir: Path, tmp_path: Path) -> None:
    from peft import AutoPeftModelForSequenceClassification
    from transformers import AutoTokenizer

    model, tokenizer, template = load(pad_is_eos_dir, peft_method="lora", lora_r=4)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    read = AutoTokenizer.from_pretrained(tmp_path / "saved")
    plain = AutoPeftModelForSequenceClassification.from_pretrained(
        tmp_path / "saved", num_labels=1, pad_token_id=read.pad_token_id
    ).eval()
    rows = sequences(template)
    with torch.no_grad():
        unpadded = [plain(input_ids=torch.tensor([ids])).logits.item() for ids in rows]
    assert unpadded == pytest.approx(scores(model, rows, tokenizer.pad_token_id), abs=1e-5)


def test_in_4_bits_the_head_stays_whole_and_trains(wide_model_dir: Path, tmp_path: Path) -> None:
    model, tokenizer, template = load(wide_model_dir, load_in_4bit=True, lora_r=4)
    head = [p for name, p in model.named_parameters() if "score.modules_to_save" in name]
    assert [(p.dtype, p.requires_grad) for p in head] == [(torch.float32, True)]
    before = scores(model, sequences(template), tokenizer.pad_token_id)
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    again = recipe(tmp_path / "saved", tmp_path, load_in_4bit=True)
    read = load_reward_model(again, tokenizer, template.stop_token_ids, trainable=False)
    assert scores(read.eval(), sequences(template), tokenizer.pad_token_id) == pytest.approx(before, abs=1e-5)


def tokenizer_of(pad_id: int | None, unk: int | None, bos: int | None, size: int = 6) -> Any:
    class Vocabulary(SimpleNamespace):
        def __len__(self) -> int:
            return size

    special = [token for token in (pad_id, unk, bos) if token is not None]
    return Vocabulary(pad_token_id=pad_id, unk_token_id=unk, bos_token_id=bos, all_special_ids=special)


@pytest.mark.parametrize(
    ("tokens", "stops", "expected"),
    [
        ((0, 1, 2), [3], 0),  # its own
        ((3, 1, 2), [3], 1),  # its own ends answers: unknown
        ((3, None, 2), [3], 2),  # begin of text
        ((3, None, 1), [3, 1], 0),  # begin of text ends answers too: any other
        ((None, None, None), [0, 1], 2),
    ],
)
def test_padding_token(tokens: tuple[int | None, ...], stops: list[int], expected: int) -> None:
    assert padding_token(tokenizer_of(*tokens), stops) == expected


def test_no_token_left_to_pad_with() -> None:
    with pytest.raises(ModelError, match=r"every token of the vocabulary is a stop token \(\[0, 1\]\)"):
        padding_token(tokenizer_of(0, None, None, size=2), [0, 1])


def test_a_policy_is_not_a_reward_model(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path / "policy")
    with pytest.raises(ModelError, match=r"policy is not a reward model: its weights have no score head"):
        require_score_head(str(path))


def test_a_sequence_that_ends_in_padding_cannot_be_batched() -> None:
    with pytest.raises(DataError, match=r"ends in the reward model's padding token \(id 0\)"):
        pad([[5, 0]], 0)
