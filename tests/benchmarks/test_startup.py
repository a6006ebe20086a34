"""The benchmark of start-up: its recipe is accepted."""

import json

from alignment.config import load_recipe
from benchmarks.startup import RECIPE


def test_its_recipe_is_accepted(tmp_path):
    (tmp_path / "sft.yaml").write_text(json.dumps({**RECIPE, "output_dir": str(tmp_path / "run")}))
    assert load_recipe("sft", ["--config", str(tmp_path / "sft.yaml")]).library["max_steps"] == 1
