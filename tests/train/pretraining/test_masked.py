"""Masked pretraining: which tokens are predicted, what stands in their place, and what is refused."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer

from alignment.config import load_recipe
from alignment.config.schema import PretrainRecipe
from alignment.errors import ModelError, RecipeError
from alignment.policy.tokenizer import load_tokenizer, template_of
from alignment.train.pretraining.documents import Documents
from alignment.train.pretraining.objective import DRAW
from alignment.train.pretraining.objectives import objective_of
from tests.models import save_tiny_encoder
from tests.train.pretraining.conftest import TEXTS, losses, manifest, run, run_killed

LONG = " ".join(TEXTS)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_tiny_encoder(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture
def masked(write, encoder):
    """Return the objective and the rows of a long text, 200 times."""

    def make(**keys):
        file = write(model_name_or_path=str(encoder), objective="masked", max_length=256, **keys)
        recipe = load_recipe(PretrainRecipe, ["--config", str(file)])
        template = template_of(recipe, load_tokenizer(recipe))
        objective = objective_of(recipe, template, 256)
        (row, *_) = objective.add(Documents(template, words=objective.words).text(LONG))
        return objective, [{**row, DRAW: [0, place]} for place in range(200)]

    return make


@pytest.mark.parametrize("whole", [False, True])
def test_of_15_percent_80_are_masked_10_random_and_10_stay(masked, whole):
    objective, rows = masked(whole_word_mask=whole)
    tokenizer = objective.setting.tokenizer
    batch = objective.collate(rows)
    ids = torch.tensor([row["input_ids"] for row in rows])
    special = torch.isin(ids, torch.tensor(tokenizer.all_special_ids))
    predicted = batch["labels"] != -100
    assert not (predicted & special).any()
    assert (batch["labels"][predicted] == ids[predicted]).all()
    assert (batch["input_ids"][~predicted] == ids[~predicted]).all()
    # 200 rows of 254 tokens; a share of 50,800 tokens is off by 0.0016 (one deviation), of words by some times more
    assert predicted.sum() / (~special).sum() == pytest.approx(0.15, abs=0.01)
    masks = (batch["input_ids"] == tokenizer.mask_token_id)[predicted].float().mean()
    stays = (batch["input_ids"] == ids)[predicted].float().mean()
    assert masks == pytest.approx(0.8, abs=0.02)
    assert stays == pytest.approx(0.1, abs=0.015)  # a random token may be the same one, once in 300 times


def test_a_whole_word_is_predicted_or_none_of_it(masked):
    objective, rows = masked(whole_word_mask=True)
    predicted = objective.collate(rows)["labels"] != -100
    words = np.array(rows[0]["words"])
    assert len({*words.tolist()}) < len(words)  # some words have several tokens
    for word in {*words.tolist()} - {-1}:
        of_word = predicted[:, torch.from_numpy(words == word)]
        assert (of_word.all(1) == of_word.any(1)).all()


def test_the_draws_depend_on_epoch_and_row_alone(masked):
    objective, rows = masked()
    together, alone = objective.collate(rows), objective.collate(rows[7:8])
    assert torch.equal(together["labels"][7:8], alone["labels"])
    again = objective.collate([{**rows[7], DRAW: [1, 7]}])
    assert not torch.equal(alone["labels"], again["labels"])
    assert not torch.equal(together["labels"][7], together["labels"][8])


def test_a_short_row_has_a_token_to_predict(masked):
    objective, _ = masked()
    opening, closing = objective.setting.opening, objective.setting.closing
    rows = [{"input_ids": [*opening, 20, *closing], DRAW: [0, place]} for place in range(20)]
    assert (objective.collate(rows)["labels"] != -100).sum(1).tolist() == [1] * 20


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_it_learns_and_transformers_loads_it(write, tmp_path, kind, method):
    model = save_tiny_encoder(tmp_path / kind, kind=kind)
    keys = {"model_name_or_path": str(model), "objective": "masked", "peft_method": method, "test_split_size": 0.2}
    run(write(max_steps=30, learning_rate=1e-2, per_device_train_batch_size=8, **keys))
    found = losses(tmp_path / "run")
    assert np.mean(found[-5:]) < found[0] - (0.5 if method == "full" else 0.1)
    results = manifest(tmp_path / "run")["results"]
    assert results["eval_perplexity"] == pytest.approx(math.exp(results["eval_loss"]), rel=1e-6)
    assert "eval_bits_per_byte" not in results
    plain = AutoModelForMaskedLM.from_pretrained(tmp_path / "run")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run")
    logits = plain(**tokenizer("The quick brown [MASK].", return_tensors="pt")).logits
    assert torch.isfinite(logits).all()
    assert not (tmp_path / "run" / "generation_config.json").exists()
    assert "AutoModelForMaskedLM" in (tmp_path / "run" / "README.md").read_text()


def test_an_evaluation_is_the_same_every_time_and_a_killed_run_ends_the_same(write, tmp_path, encoder, monkeypatch):
    keys = {"model_name_or_path": str(encoder), "objective": "masked", "test_split_size": 0.2, "learning_rate": 1e-9}
    file = write(max_steps=6, save_strategy="steps", save_steps=2, eval_strategy="steps", eval_steps=2, **keys)
    run(file, output_dir=tmp_path / "whole")
    logs = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert len({round(log["eval_loss"], 5) for log in logs if "eval_loss" in log}) == 1
    run_killed(file, monkeypatch, 3, output_dir=tmp_path / "killed")
    run(file, output_dir=tmp_path / "killed")
    whole, killed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(whole[key], killed[key]) for key in whole)
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        ("causal", r"is a BertForMaskedLM, and a decoder that predicts the next token is needed here; stage pretrain"),
        ("seq2seq", r"is a BertForMaskedLM, and an encoder-decoder model, such as T5 or BART is needed here"),
    ],
)
def test_an_objective_that_the_model_cannot_do_is_refused_before_the_run(write, tmp_path, encoder, objective, told):
    with pytest.raises(ModelError, match=told) as error:
        run(write(model_name_or_path=str(encoder), objective=objective))
    assert error.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_a_decoder_and_a_missing_mask_token_are_refused(write, tmp_path, tiny_model_dir):
    with pytest.raises(ModelError, match="is a LlamaForCausalLM, and an encoder with a head for masked tokens"):
        run(write(model_name_or_path=str(tiny_model_dir), objective="masked"))
    without = save_tiny_encoder(tmp_path / "without", masks=False)
    with pytest.raises(ModelError, match="has no mask token, which objective masked needs") as error:
        run(write(model_name_or_path=str(without), objective="masked"))
    assert error.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_a_length_without_room_for_a_text_is_refused(write, tmp_path, encoder):
    with pytest.raises(ModelError, match="max_length 2 leaves no room for a text beside the tokenizer's 2 special"):
        run(write(model_name_or_path=str(encoder), objective="masked", max_length=2))
    assert not (tmp_path / "run").exists()


def test_keys_of_another_objective_are_refused(write):
    with pytest.raises(RecipeError, match="whole_word_mask: is read with objective masked alone"):
        run(write(whole_word_mask=True))
