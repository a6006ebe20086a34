"""Rewards that check an answer without a model, as scorers of a recipe."""

import json
import re

import pytest

from alignment.config.loading import load_recipe
from alignment.config.schema import GRPORecipe, scorer_entry
from alignment.data import load_rows
from alignment.errors import AlignmentError, ScorerError
from alignment.train.policy_gradient.scoring import Answered
from reward.scorers import build_functions, try_functions
from reward.scorers.format import build as format_scorer
from reward.scorers.ifeval import build as ifeval_scorer
from reward.scorers.length import build as length_scorer
from reward.scorers.math import build as math_scorer

BUILD = {"math": math_scorer, "ifeval": ifeval_scorer, "format": format_scorer, "length": length_scorer}


def scores(answers, columns=(), **keys):
    entry = scorer_entry(**keys)
    scorer = BUILD[entry.kind](entry, None, None)
    return scorer.score_rows(Answered(["p"] * len(answers), answers, [True] * len(answers), columns=columns))


def test_math_compares_with_the_column_of_the_row():
    rows = [{"answer": 4}, {"answer": "so 2 + 3\n#### 5"}, {"answer": None}]
    assert scores(["It is 4.", "It is 4.", "It is 4."], rows, kind="math") == [1.0, 0.0, None]
    assert scores([r"\boxed{\frac{1}{2}}"], [{"solution": "0.5"}], kind="math", column="solution") == [1.0]


def test_ifeval_gives_the_fraction_or_all_of_the_instructions():
    row = {"instruction_id_list": ["punctuation:no_comma", "startend:quotation"], "kwargs": [{}, {"relation": None}]}
    assert scores(["no commas"], [row], kind="ifeval") == [0.5]
    assert scores(["no commas", '"both"'], [row, row], kind="ifeval", score="all") == [0.0, 1.0]


def test_format_takes_a_pattern_or_a_schema(tmp_path):
    (tmp_path / "schema.json").write_text('{"type": "object", "required": ["name"]}')
    pattern = r"<answer>\d+</answer>"
    assert scores(["x <answer>3</answer>"], kind="format", pattern=pattern) == [1.0]
    assert scores(["x <answer>3</answer>"], kind="format", pattern=pattern, full_match=True) == [0.0]
    schema = str(tmp_path / "schema.json")
    assert scores(['{"name": 1}', "{}", "name"], kind="format", json_schema=schema) == [1.0, 0.0, 0.0]


def test_length_falls_outside_its_range():
    keys = {"kind": "length", "minimum": 2, "maximum": 3, "margin": 2.0}
    assert scores(["a", "a b", "a b c d", "a b c d e"], **keys) == [0.5, 1.0, 0.5, 0.0]


def test_a_pattern_that_backtracks_ends_the_run_with_the_row():
    message = "scorer format did not return within timeout_seconds: 0.2; .* the prompt 'p' and the answer 'aaa"
    with pytest.raises(ScorerError, match=message):
        scores(["a" * 40 + "b"], kind="format", pattern=r"^(a+)+$", timeout_seconds=0.2)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read: No such file"), ("{", "is not JSON"), ('{"type": 3}', "schema is invalid")],
)
def test_a_schema_that_cannot_be_used_is_refused(tmp_path, content, message):
    file = tmp_path / "schema.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ScorerError, match=message):
        scores(["{}"], kind="format", json_schema=str(file))


def recipe(tmp_path, rows, *scorers):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys = {
        "stage": "grpo", "output_dir": str(tmp_path / "out"), "model_name_or_path": "m", "scorers": list(scorers),
        "datasets": [{"path": str(tmp_path / "rows.jsonl")}], "total_episodes": 64,
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(json.dumps(keys))
    return load_recipe(GRPORecipe, ["--config", str(tmp_path / "recipe.yaml")])


@pytest.mark.parametrize(
    ("scorer", "columns", "message"),
    [
        ({"kind": "math"}, {"answer": "a fair question"}, r"rows.jsonl:3: math reference .* cannot be parsed"),
        ({"kind": "math", "column": "title"}, {}, "rows.jsonl:1: no row has the column title, which a scorer reads"),
        ({"kind": "math"}, {"answer": ["2", "3"]}, "rows.jsonl:3: math reference .* is neither a number nor text"),
        ({"kind": "math"}, {"answer": True}, "rows.jsonl:3: math reference True is neither"),
        ({"kind": "math"}, {"answer": "12:30"}, "rows.jsonl:3: math reference '12:30' is neither"),
        ({"kind": "math"}, {"answer": None}, "rows.jsonl:3: no scorer applies to the row, which has no answer"),
        ({"kind": "ifeval"}, {"instruction_id_list": ["x:y"], "kwargs": [{}]}, "rows.jsonl:3: ifeval instruction"),
        ({"kind": "ifeval"}, {"instruction_id_list": [], "kwargs": []}, "rows.jsonl:3: ifeval has 0 instructions"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_checked_is_refused_with_its_line(tmp_path, scorer, columns, message):
    of_kind = {"math": {"answer": "4"}, "ifeval": {"instruction_id_list": ["startend:quotation"], "kwargs": [{}]}}
    good = of_kind[scorer["kind"]] if columns else {}
    loaded = recipe(tmp_path, [{"prompt": "a", **good}, {"prompt": "b", **good}, {"prompt": "c", **columns}], scorer)

    def check():
        try_functions(loaded, build_functions(loaded), load_rows(loaded))

    with pytest.raises(AlignmentError, match=message) as error:
        check()
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        ({"kind": "format"}, "needs pattern or json_schema, and has neither"),
        ({"kind": "format", "pattern": "a", "json_schema": "b"}, "needs pattern or json_schema, and has both"),
        ({"kind": "format", "pattern": "("}, "pattern: is no regular expression"),
        ({"kind": "format", "json_schema": "b", "full_match": True}, "full_match: has no effect without pattern"),
        ({"kind": "format", "pattern": ""}, "pattern: is empty and matches every answer"),
        ({"kind": "length", "minimum": 0}, "minimum: 0 without maximum accepts every answer"),
        ({"kind": "length"}, "needs minimum, maximum or both"),
        ({"kind": "length", "minimum": 5, "maximum": 4}, "minimum: 5 is greater than maximum: 4"),
        ({"kind": "length", "minimum": 5, "column": "x"}, "column: does not belong to a scorer of kind length"),
        ({"kind": "math", "column": ""}, "column"),
    ],
)
def test_wrong_keys_are_refused_with_their_place(tmp_path, scorer, message):
    with pytest.raises(AlignmentError, match=rf"recipe.yaml.*scorers\[0\].*{re.escape(message)}"):
        recipe(tmp_path, [{"prompt": "a"}], scorer)


def test_rows_to_which_a_scorer_does_not_apply_are_counted(tmp_path, capsys):
    rows = [{"prompt": "a", "answer": "4"}, {"prompt": "b"}, {"prompt": "c", "answer": None}]
    given = recipe(tmp_path, rows, {"kind": "math"}, {"kind": "length", "maximum": 3})
    try_functions(given, build_functions(given), load_rows(given))
    assert "scorer math: applies to 1 of 3 rows; the others have no answer" in capsys.readouterr().err


def test_every_row_of_ifeval_is_taken(tmp_path, shared):
    rows = [json.loads(line) for line in (shared / "data/ifeval/input_data.jsonl").read_text().splitlines()]
    loaded = recipe(tmp_path, rows, {"kind": "ifeval"})
    data = load_rows(loaded)
    try_functions(loaded, build_functions(loaded), data)
    assert len(data.rows) == 541
    assert [sorted(row) for row in data.columns[:1]] == [["instruction_id_list", "kwargs"]]
