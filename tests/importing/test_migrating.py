"""The guides for PPO: their recipes are accepted, and the keys that they name exist."""

import re
from pathlib import Path

import pytest

from alignment.config import check_file
from alignment.config.estimators import ADVANTAGE_ESTIMATORS
from alignment.config.loading import library_keys, own_keys
from alignment.config.schema import STAGES

PAGE = (Path(__file__).parents[2] / "docs/migrating.md").read_text(encoding="utf-8")
RECIPES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
ROWS = re.findall(r"^\| (?!---).* \| (.*) \|$", PAGE, re.MULTILINE)
WORDS = {  # values, names of flags and of rows, that are no keys
    *ADVANTAGE_ESTIMATORS, "adapter", "answer", "path", "split", "columns", "fraction", "prompt", "reward", "prepare",
    "http", "function", "ensemble", "reward_model", "grpo", "mse", "k1", "k2", "k3", "low_var_kl", "kl", "n", "rm",
    "value_head.safetensors", "zero3", "zero3-offload", "completions", "norm_adv_by_std_in_grpo", "kind",
    "token-mean", "seq-mean-token-sum", "seq-mean-token-mean",
}  # fmt: skip


@pytest.mark.parametrize("number", range(4))
def test_a_recipe_of_the_guides_is_accepted(tmp_path, number):
    (tmp_path / "ppo.yaml").write_text(RECIPES[number], encoding="utf-8")
    (recipe,) = check_file(str(tmp_path / "ppo.yaml"))
    assert recipe.STAGE.title == "PPO"


def test_each_section_has_a_recipe_and_names_keys_that_exist():
    assert len(RECIPES) == PAGE.count("\n## ") == 4
    known = {key for cls in STAGES.values() for key in (*own_keys(cls), *library_keys(cls))}
    named = {word for row in ROWS for word in re.findall(r"`([a-z][\w.-]*)(?:: [^`]*)?`", row)}
    assert sorted(named - known - WORDS) == []
