"""Causal pretraining: packed documents stay apart, the perplexity is right, and a killed run ends the same."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignment.config import load_recipe
from alignment.config.schema import PretrainRecipe
from alignment.data import load_demonstrations
from alignment.data.template import Template
from alignment.errors import DataError, ModelError, RecipeError
from alignment.train.pretraining.documents import Document
from alignment.train.pretraining.isolation import require_apart
from alignment.train.pretraining.objectives import objective_of
from alignment.train.pretraining.rows import prepared
from tests.train.pretraining.conftest import TEXTS, losses, manifest, run, run_killed

EOS = 1  # of the tiny tokenizer


@pytest.fixture
def pack(write, tiny_model_dir):
    """Return the objective of a recipe with sequences of 16 tokens."""

    def make(**keys):
        recipe = load_recipe(PretrainRecipe, ["--config", str(write(max_length=16, **keys))])
        return objective_of(recipe, Template(AutoTokenizer.from_pretrained(tiny_model_dir)), 16)

    return make


def documents(*lengths):
    starts = range(10, 10 + 40 * len(lengths), 40)
    return [Document([*range(begin, begin + length)], length) for begin, length in zip(starts, lengths, strict=True)]


def test_documents_fill_sequences_and_what_does_not_fit_is_continued(pack):
    objective = pack()
    rows = [row for document in documents(5, 12, 3) for row in objective.add(document)] + objective.rest()
    # 5 + EOS and the first 10 of 12 tokens; the 2 others + EOS, 3 + EOS
    assert rows[0]["input_ids"] == [*range(10, 15), EOS, *range(50, 60)]
    assert rows[0]["position_ids"] == [*range(6), *range(10)]
    assert rows[1] == {"input_ids": [60, 61, EOS, 90, 91, 92, EOS], "position_ids": [0, 1, 2, 0, 1, 2, 3]}
    batch = objective.collate(rows)
    # the first token of each document, or piece of one, is not learned from what stands before it
    assert batch["labels"][0].tolist() == [-100, *range(11, 15), EOS, -100, *range(51, 60)]
    assert batch["labels"][1].tolist() == [-100, 61, EOS, -100, 91, 92, EOS] + [-100] * 9
    assert "attention_mask" not in batch


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_logits_in_a_sequence_are_those_of_the_document_alone(pack, tiny_model_dir, attention):
    objective = pack()
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, attn_implementation=attention).eval()
    given = documents(5, 7)
    batch = objective.collate([row for document in given for row in objective.add(document)] + objective.rest())
    packed = model(**batch, use_cache=False).logits[0]
    begin, total = 0, 0.0
    for document in given:
        ids = [*document.ids, EOS]
        alone = model(torch.tensor([ids])).logits[0]
        assert torch.allclose(packed[begin : begin + len(ids)], alone, atol=1e-6)
        logps = alone.double().log_softmax(-1)
        total -= sum(logps[t - 1, ids[t]].item() for t in range(1, len(ids)))
        begin += len(ids)
    # the mean over the 5 + 7 predicted tokens
    assert model(**batch, use_cache=False).loss.item() == pytest.approx(total / 12, rel=1e-6)


def test_a_model_that_ignores_the_borders_is_refused(pack, shared):
    for kind, reason in {"opt": "logits of one change by", "bloom": "its forward takes no position_ids"}.items():
        model = AutoModelForCausalLM.from_pretrained(shared / "models/kinds" / kind)
        with pytest.raises(ModelError, match=rf"do not stay apart in \w+ \({reason}.*set packing: false"):
            require_apart(model, pack(), SimpleNamespace(per_device_train_batch_size=2, per_device_eval_batch_size=2))


def test_without_packing_each_row_is_padded(pack):
    objective = pack(packing=False)
    rows = [row for document in documents(2, 18) for row in objective.add(document)]
    batch = objective.collate(rows)
    assert batch["attention_mask"].sum(1).tolist() == [3, 16, 3]  # 2 + EOS; 18 + EOS in pieces of 16
    assert batch["labels"][0].tolist() == [-100, 11, EOS] + [-100] * 13


def test_it_learns_and_the_perplexity_is_that_of_the_held_out_text(write, tmp_path):
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS[20:]))
    file = write(TEXTS[:20], eval_datasets=[{"path": str(held_out)}], max_steps=8, max_length=None)
    run(file)
    assert losses(tmp_path / "run")[-1] < losses(tmp_path / "run")[0] - 0.5
    results = manifest(tmp_path / "run")["results"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run")
    total, tokens = 0.0, 0
    for text in TEXTS[20:]:
        ids = [*tokenizer(text).input_ids, EOS]
        logps = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        total -= sum(logps[t - 1, ids[t]].item() for t in range(1, len(ids)))
        tokens += len(ids) - 1
    assert results["eval_predicted_tokens"] == tokens
    assert results["eval_perplexity"] == pytest.approx(math.exp(total / tokens), rel=1e-5)
    begins = sum(len(tokenizer.decode(tokenizer(text).input_ids[:1]).encode()) for text in TEXTS[20:])
    size = sum(len(text.encode()) for text in TEXTS[20:]) - begins  # of what is predicted
    assert results["eval_bits_per_byte"] == pytest.approx(total / math.log(2) / size, rel=1e-5)


@pytest.mark.parametrize("packing", [False, True])
def test_bytes_are_those_of_the_predicted_tokens(write, tiny_model_dir, packing):
    file = write(["the quick brown fox jumps", "a larger world of words", "a b"], max_length=8, packing=packing)
    recipe = load_recipe(PretrainRecipe, ["--config", str(file)])
    template = Template(AutoTokenizer.from_pretrained(tiny_model_dir))
    rows = load_demonstrations(recipe.datasets, on_bad_row="stop", seed=0).rows
    made = prepared(recipe, template, 8, rows, held_out=True)
    batch = objective_of(recipe, template, 8).collate([made.rows[place] for place in range(len(made.rows))])
    predicted = [int(label) for label in batch["labels"].flatten() if label not in (-100, EOS)]
    tokens = template.tokenizer.convert_ids_to_tokens(predicted)  # of which each letter is a byte
    assert made.size == sum(map(len, tokens))


def test_a_killed_run_ends_at_the_same_weights(write, tmp_path, monkeypatch):
    file = write(lora_dropout=0.2, peft_method="lora", save_strategy="steps", save_steps=2, max_steps=6)
    run(file, output_dir=tmp_path / "whole")
    run_killed(file, monkeypatch, 3, output_dir=tmp_path / "killed")
    run(file, output_dir=tmp_path / "killed")
    whole, killed = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(whole[key], killed[key]) for key in whole)
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")


def test_random_weights_are_those_of_the_seed(write, tmp_path, tiny_model_dir):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (bare / name).write_bytes((tiny_model_dir / name).read_bytes())
    file = write(model_name_or_path=str(bare), from_scratch=True, max_steps=1)
    for name, seed in {"a": 1, "b": 1, "c": 2}.items():
        run(file, output_dir=tmp_path / name, seed=seed)
    a, b, c = (load_file(tmp_path / name / "initial" / "model.safetensors") for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["lm_head.weight"], c["lm_head.weight"])
    assert losses(tmp_path / "a")[0] == pytest.approx(math.log(300), abs=0.1)  # of a model that knows nothing
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "a").config.vocab_size == 300


def test_demonstrations_are_rendered_and_learned_whole(write, tmp_path):
    run(write([{"prompt": "Why? ", "completion": "So."}, {"prompt": "Who? ", "completion": "Me."}]), max_steps=1)
    shown = manifest(tmp_path / "run")["preview"]["sequences"]["segments"]
    learned = "".join(piece["text"] for piece in shown if piece.get("trained"))
    assert learned.startswith("y? So.")  # all but its first token


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"from_scratch": True, "peft_method": "lora"}, "peft_method: lora leaves the random weights of from_scratch"),
        ({"use_cache": True}, "use_cache: must be false in Pretraining"),
        ({"remove_unused_columns": True}, "remove_unused_columns: must be false in Pretraining"),
        ({"peft_method": "prompt_tuning", "packing": True}, "packing: false"),
    ],
)
def test_impossible_keys_are_refused(write, keys, told):
    with pytest.raises(RecipeError, match=told):
        run(write(**keys))


def test_text_without_a_sequence_is_refused(write, tmp_path):
    with pytest.raises(DataError, match=r"text.jsonl is empty: it holds no rows") as error:
        run(write([]))
    assert error.value.exit_code == 2
    told = r"text.jsonl:1: the document has 3,000,000 characters, more than the 2,097,152"
    with pytest.raises(DataError, match=told):
        run(write(["ab " * 1_000_000]), overwrite="true")
    assert not (tmp_path / "run" / "model.safetensors").exists()
