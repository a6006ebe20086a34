"""A stage that makes data and trains nothing: what its statement `makes="data"` gives it everywhere."""

import json
from pathlib import Path
from typing import Literal

import datasets
import pytest

from alignment.config import schema
from alignment.config.schema import DatasetEntry, Recipe, SFTRecipe
from alignment.config.schema.keys import DataKeys
from alignment.config.schema.recipe import Stage
from alignment.data import load_demonstrations, load_rows
from alignment.doctor.recipe import examine
from alignment.errors import DataError
from alignment.planner.machine import Machine
from alignment.planner.rows import rows_of
from alignment.run.card import model_card

ROWS = [{"prompt": f"question {n}?", "completion": f"answer {n}"} for n in range(6)]


class MadeRecipe(Recipe, DataKeys):
    """A stage that makes data."""

    STAGE = Stage(title="Made", help="Make data.", makes="data", rows="any", one_process=True)
    stage: Literal["made"]


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.setitem(schema.STAGES, "made", MadeRecipe)
    source = tmp_path / "source.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return MadeRecipe(stage="made", output_dir=str(tmp_path / "run"), datasets=[DatasetEntry(path=str(source))])


def finished(recipe, status="finished"):
    """Write the folder of a run with two splits, and a file of rows that are not its data."""
    run = Path(recipe.output_dir)
    run.mkdir()
    manifest = {"stage": "made", "status": status, "recipe_sha256": "0a"}
    manifest["files"] = {"train": "train.jsonl", "test": "test.jsonl"}
    (run / "manifest.json").write_text(json.dumps(manifest))
    for name, rows in (("train", ROWS[:4]), ("test", ROWS[4:]), ("dropped", ROWS)):
        (run / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "README.md").write_text(model_card(recipe, manifest))
    return str(run)


def read(path, split="train"):
    return load_demonstrations([DatasetEntry(path=path, split=split)], on_bad_row="stop", seed=0).rows


def test_later_stages_and_datasets_read_the_splits_of_its_folder(recipe, tmp_path):
    run = finished(recipe)
    assert [row.completion for row in read(run)] == ["answer 0", "answer 1", "answer 2", "answer 3"]
    assert [row.completion for row in read(run, "test")] == ["answer 4", "answer 5"]
    loaded = datasets.load_dataset(run, cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 4, "test": 2}


def test_an_interrupted_run_has_no_data(recipe):
    run = finished(recipe, "running")
    with pytest.raises(DataError, match="an interrupted run of stage made and has no data yet; run `alignment made`"):
        read(run)


def test_rows_of_every_layout_are_read(recipe, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"prompt": "q", "chosen": "a", "rejected": "b"}) + "\n")
    both = recipe.model_copy(update={"datasets": [*recipe.datasets, DatasetEntry(path=str(pairs))]})
    assert [type(row).__name__ for row in load_rows(both).rows] == ["Demonstration"] * 6 + ["Ranking"]


def test_the_doctor_reads_its_data_without_a_model(recipe, tmp_path):
    found = {one.about: one for one in examine(recipe, Machine(memory=2**30))}
    assert found["data"].found == "6 rows, 0 left out"
    assert "model" not in found
    (tmp_path / "source.jsonl").write_text('{"nothing": 1}\n')
    assert {one.about: one.level for one in examine(recipe, Machine(memory=2**30))}["data"] == "fault"


def test_a_plan_counts_at_most_the_rows_that_it_reads(recipe):
    sft = SFTRecipe(
        stage="sft", output_dir="x", model_name_or_path="m", datasets=[DatasetEntry(path=recipe.output_dir)]
    )
    assert rows_of(sft, {recipe.output_dir: recipe}) == 6
