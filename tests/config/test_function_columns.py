"""The columns that a reward function receives, read from its source without importing it."""

import sys

import pytest

from alignment.config.function_columns import ALL, columns_of_function
from alignment.config.schema import scorer_entry

SOURCE = """
import no_such_package_anywhere  # the module is never imported

def ours(prompts, answers): ...
def named(ps, xs, answer, *, unit="m"): ...
def trl(completions, solution, **kwargs): ...
def trl_whole(prompts, completions, completion_ids, constraints, trainer_state=None, log_metric=None): ...
async def waits(completions, solution, **kwargs): ...
def everything(prompts, answers, **columns): ...
class Scorer:
    def score(self, prompts, answers, hidden): ...
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    for name in ("my_rules.py", "my_package/rules.py"):
        (tmp_path / name).write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    yield
    assert "my_rules" not in sys.modules


@pytest.mark.parametrize("path", ["my_rules", "my_package.rules"])
@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("ours", {}),
        ("named", {"answer": True, "unit": False}),
        ("trl", {"solution": True, ALL: False}),
        ("waits", {"solution": True, ALL: False}),
        ("trl_whole", {"constraints": True}),
        ("everything", {ALL: False}),
        ("Scorer", {}),
        ("missing", {}),
    ],
)
def test_columns_are_the_parameters_that_trainers_do_not_give(module, path, name, columns):
    assert scorer_entry(kind="function", function=f"{path}:{name}").columns_read == columns


def test_columns_of_the_recipe_replace_those_of_the_parameters(module):
    entry = scorer_entry(kind="function", function="my_rules:everything", columns=["answer"])
    assert entry.columns_read == {"answer": True}


@pytest.mark.parametrize("where", ["operator:add", "builtins:sum", "no_such_module:f", "json.no_such:f", ":", "a..b:c"])
def test_functions_without_python_source_have_no_columns(where):
    assert columns_of_function(where) == {}
