"""The benchmark of tuning methods: its methods exist, and its table shows means and ranges."""

import json

import pytest

from alignment.config import load_recipe
from alignment.config.methods import TUNING_METHODS
from benchmarks.tuning import METHODS, RATES, STEPS, VARIANTS, recipe_of, table


def test_every_method_exists():
    assert set(METHODS) <= set(TUNING_METHODS)
    assert set(METHODS) == set(RATES)


@pytest.mark.parametrize("name", {**METHODS, **VARIANTS})
def test_its_recipe_is_accepted(name, tmp_path):
    job = {"model": "m", "steps": STEPS, "method": name, "seed": 0, "rate": 0.1, "reward_rate": 0.2}
    file = tmp_path / "recipe.yaml"
    for stage, rate in (("sft", 0.1), ("reward", 0.2))[: 2 if name in METHODS else 1]:
        file.write_text(json.dumps(recipe_of(stage, job, tmp_path)))
        assert load_recipe(stage, ["--config", str(file)]).library["learning_rate"] == rate


def test_a_row_shows_the_mean_and_the_range_over_seeds():
    run = {
        "method": "lora",
        "rate": 0.004,
        "reward_rate": 0.01,
        "trained": 0.25,
        "seconds": 0.1,
        "memory": 10.4,
        "file": 99.6,
    }
    rows = [{**run, "loss": loss, "accuracy": 0.5} for loss in (1.0, 2.0, 3.0)]
    expected = "| `lora` | 3 | 0.004, 0.01 | 25.00% | 2.000 [1.000, 3.000] | 50.0% | 0.100 | 10 | 100 |"
    assert table(rows).splitlines()[-1] == expected
