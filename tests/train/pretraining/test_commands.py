"""`plan`, `doctor` and `preview` of pretraining look at the sequences that training makes."""

import json

import pytest
from transformers import AutoTokenizer

from alignment.config.loading import check_recipe
from alignment.doctor.recipe import examine
from alignment.planner.hours import time_of
from alignment.planner.machine import Machine
from alignment.planner.memory import plan_stage
from alignment.planner.rows import rows_of
from alignment.planner.sequences import SAMPLE
from alignment.preview.command import preview
from alignment.preview.pretraining import documents_shown
from alignment.preview.wording import facts
from tests.models import save_tiny_encoder, save_tiny_t5
from tests.train.pretraining.conftest import TEXTS, manifest, run

CPU = Machine(gpu=False)
LONG = [" ".join(TEXTS[number : number + 3]) for number in range(0, 21, 3)]


@pytest.fixture
def recipe(write, tmp_path):
    """Write a recipe of an objective with its kind of model."""

    def make(objective, rows=TEXTS, **keys):
        makes = {"masked": save_tiny_encoder, "seq2seq": save_tiny_t5}
        if objective in makes:
            keys["model_name_or_path"] = str(makes[objective](tmp_path / objective))
        return write(rows, objective=objective, **keys)

    return make


@pytest.mark.parametrize("keys", [{"packing": True}, {"packing": False}, {"objective": "masked"}], ids=str)
def test_a_plan_counts_the_sequences_that_training_makes(keys, recipe, tmp_path):
    file = recipe(keys.pop("objective", "causal"), LONG, max_steps=-1, num_train_epochs=2, **keys)
    planned = check_recipe(str(file))
    rows = rows_of(planned, {})
    time = time_of(plan_stage(planned, CPU), rows)
    run(file)
    found = manifest(tmp_path / "run")
    assert rows == found["train"]["rows"] > len(LONG)
    assert time.steps == found["results"]["steps"]


def test_a_plan_of_many_documents_tokenises_some(recipe, tiny_model_dir):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    length = sum(len(tokenizer(text).input_ids) + 1 for text in TEXTS) / len(TEXTS)  # and EOS
    rows = [TEXTS[number % len(TEXTS)] for number in range(4 * SAMPLE)]
    planned = check_recipe(str(recipe("causal", rows)))
    assert rows_of(planned, {}) == pytest.approx(4 * SAMPLE * length / 64, rel=0.01)


def test_a_plan_of_a_stream_counts_its_steps(recipe):
    planned = check_recipe(str(recipe("causal", streaming=True, max_steps=5)))
    time = time_of(plan_stage(planned, CPU), rows_of(planned, {}))
    assert (time.rows, time.steps, time.tokens) == (None, 5, 5 * 2 * 64)


def looked_at(file):
    return {finding.about: finding for finding in examine(check_recipe(str(file)), CPU)}


@pytest.mark.parametrize(
    ("objective", "around", "predicted"),
    [
        ("causal", "each ends with '<|im_end|>'", "97%"),
        ("masked", "each begins with '[CLS]' and ends with '[SEP]'", "14%"),
        ("seq2seq", "each ends with '</s>'", "in targets, for inputs of"),
    ],
)
def test_a_doctor_reports_what_is_predicted(objective, around, predicted, recipe):
    found = looked_at(recipe(objective))
    assert found["documents"].found == around
    assert predicted in found["predicted tokens"].found
    assert found["unknown tokens"].found == "none"
    assert {"labels", "template", "padding", "text"}.isdisjoint(found)  # of answers
    assert all(each.level == "ok" for name, each in found.items() if name not in ("disk",))


def test_a_doctor_finds_what_training_refuses(recipe, write, tmp_path):
    found = looked_at(recipe("causal", ["ab " * 1_000_000, *TEXTS]))
    assert "1 of 25 cannot be used, first" in found["rows"].found
    bare = save_tiny_encoder(tmp_path / "bare", masks=False)
    assert "has no mask token" in looked_at(write(objective="masked", model_name_or_path=str(bare)))["objective"].found


def test_a_doctor_of_a_stream_reads_its_beginning(recipe):
    found = looked_at(recipe("causal", streaming=True))
    assert found["data"].found == "the stream's first 24 rows, 0 left out"


@pytest.mark.parametrize("streaming", [False, True])
def test_a_preview_shows_sequences_without_stop_tokens(streaming, recipe):
    found = preview(str(recipe("causal", streaming=streaming)), [], None, lambda _: documents_shown)
    assert found.stage.unit == "sequences" + (" of the stream's first 24 rows" if streaming else "")
    (tokens,) = found.rows[0].sequences.values()
    assert facts(tokens, found.tokenizer, found.stops) == "64 tokens, 62 trained"
    assert json.dumps(found.to_json())
