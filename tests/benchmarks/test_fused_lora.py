"""The benchmark of fused LoRA layers: its recipes are accepted, and its table shows ratios."""

import json

import pytest

from alignment.config import load_recipe
from benchmarks.fused_lora import MODELS, PRECISIONS, STAGES, line, recipe_of


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("stage", STAGES)
def test_its_recipe_is_accepted(stage, precision, model, tmp_path):
    rows, _ = MODELS[model]
    job = {"model": "m", "folder": str(tmp_path), "rows": rows, "stage": stage, "precision": precision}
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(recipe_of(job, 2, tmp_path / "out")))
    assert load_recipe(stage, ["--config", str(file)]).load_in_4bit == (precision == "nf4")


def test_a_row_shows_ours_over_pefts():
    run = {
        "model": "equal", "stage": "sft", "precision": "nf4",
        "fused": {"seconds": 0.5, "mib": 90.4}, "peft": {"seconds": 0.625, "mib": 100.0},
    }  # fmt: skip
    assert line(run) == "| `equal` | sft | nf4 | 0.500 | 0.625 | **0.80** | 90 | 100 | **0.90** |"
