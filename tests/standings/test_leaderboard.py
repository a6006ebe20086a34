"""Bradley-Terry strengths with Davidson's ties: by hand, against a slow likelihood, and where none is finite."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy.optimize import minimize

from alignment.errors import DataError
from alignment.evaluate.statistics import Bootstrap
from alignment.report import build
from alignment.standings.battles import Battle
from alignment.standings.bradley_terry import leaderboard
from alignment.standings.leaderboards import leaderboards, table

QUICK = Bootstrap(samples=100)


def battles(*scores, prompts=None, judge="toy", subset=""):
    """Return judgements: (first, second, probability, how often)."""
    rows = [(first, second, p) for first, second, p, times in scores for _ in range(times)]
    return [
        Battle(f"q{i if prompts is None else i % prompts}", first, second, p, judge, subset=subset)
        for i, (first, second, p) in enumerate(rows)
    ]


def by_model(board):
    return {row["model"]: row for row in board["models"]}


def test_two_models_by_hand():
    # 60 wins, 20 ties, 20 losses. At the maximum the shares are those of the data: p1/p2 = 60/20, so the gap is ln 3;
    # P(tie) = nu / (sqrt 3 + 1 / sqrt 3 + nu) = 0.2 gives nu = 0.25 (sqrt 3 + 1 / sqrt 3).
    board = leaderboard(battles(("a", "b", 0.9, 60), ("a", "b", 0.5, 20), ("b", "a", 1.0, 20)), QUICK)
    found = by_model(board)
    gap = found["a"]["strength"]["value"] - found["b"]["strength"]["value"]
    assert gap == pytest.approx(math.log(3), rel=1e-9)
    nu = 0.25 * (math.sqrt(3) + 1 / math.sqrt(3))
    assert board["tie_probability"] == pytest.approx(nu / (2 + nu), rel=1e-9)
    assert found["a"]["win_rate"]["value"] == pytest.approx(0.6 + 0.1, rel=1e-9)
    assert found["a"]["elo"]["value"] - found["b"]["elo"]["value"] == pytest.approx(400 * math.log10(3), rel=1e-9)
    assert (found["a"]["wins"], found["a"]["ties"], found["a"]["losses"]) == (60, 20, 20)
    assert (found["a"]["rank"], found["b"]["rank"], board["bounded"]) == (1, 2, True)


@pytest.mark.parametrize("ties", [0.0, 0.6])
def test_many_models_against_the_likelihood_written_out(ties):
    draw, names = np.random.default_rng(3), ["a", "b", "c", "d"]
    true, rows = dict(zip(names, (0.8, 0.1, -0.2, -0.7), strict=True)), []
    for i, (x, y) in itertools.product(range(60), itertools.permutations(names, 2)):
        shares = np.array([math.exp(true[x]), ties * math.exp((true[x] + true[y]) / 2), math.exp(true[y])])
        outcome = draw.choice(3, p=shares / shares.sum())
        rows.append(Battle(f"q{i}", x, y, (0.7, 0.5, 0.3)[outcome], "toy"))

    def loss(values):
        strengths = dict(zip(names, values, strict=False))
        total = sum(values[:4]) ** 2
        for row in rows:
            x, y = strengths[row.first], strengths[row.second]
            logits = [x, y] + ([values[4] + (x + y) / 2] if ties else [])
            chosen = x if row.probability > 0.5 else y if row.probability < 0.5 else logits[2]
            total -= chosen - math.log(sum(map(math.exp, logits)))
        return total

    slow = minimize(loss, np.zeros(5 if ties else 4), tol=1e-10).x
    found = by_model(leaderboard(rows, QUICK))
    for name, value in zip(names, slow, strict=False):
        assert found[name]["strength"]["value"] == pytest.approx(value, abs=1e-4)
        assert found[name]["strength"]["low"] < value < found[name]["strength"]["high"]


def test_intervals_resample_prompts():
    # One prompt's judgement, copied forty times over ten prompts, is worth ten judgements: the interval is wider.
    scores = [("a", "b", 0.9, 28), ("a", "b", 0.1, 12)]
    alone, copied = (by_model(leaderboard(battles(*scores, prompts=n), QUICK))["a"]["elo"] for n in (None, 1))
    assert copied["low"] is None
    assert alone["low"] < alone["value"] < alone["high"]
    again = by_model(leaderboard(battles(*scores), QUICK))["a"]["elo"]
    assert again == alone  # the same seed


def test_a_model_that_always_wins_has_a_finite_place_and_the_table_tells():
    board = leaderboard(battles(("a", "b", 1.0, 10), ("b", "c", 1.0, 6), ("c", "b", 1.0, 4)), QUICK)
    assert [row["model"] for row in board["models"]] == ["a", "b", "c"]
    assert not board["bounded"]
    assert math.isfinite(board["models"][0]["elo"]["value"])
    assert "half a tie was added" in table({"judge": "toy", "subsets": {}, **board})


def test_ties_alone_make_equals():
    board = leaderboard(battles(("a", "b", 0.5, 5), ("b", "c", 0.5, 5)), QUICK)
    assert {row["win_rate"]["value"] for row in board["models"]} == {0.5}
    assert board["tie_probability"] == 1.0
    assert {row["rank"] for row in board["models"]} == {1}


def test_models_that_nothing_connects_have_no_order():
    rows = battles(("a", "b", 0.9, 3), ("b", "a", 0.9, 2), ("c", "d", 0.9, 3))
    with pytest.raises(DataError, match=r"no common order: a, b; c, d"):
        leaderboard(rows, QUICK)
    (board,) = leaderboards(rows, QUICK)
    assert "no common order" in table(board)


def test_boards_by_judge_people_and_subset():
    scores = [("a", "b", 0.9, 4), ("b", "c", 0.8, 4), ("c", "a", 0.6, 4)]
    rows = battles(*scores, judge="person:Ann", subset="x") + battles(*scores, judge="person:Bob", subset="y")
    rows += battles(("a", "b", 0.9, 4), judge="toy")
    (board,) = leaderboards(rows, QUICK)
    assert (board["judge"], board["n"], board["subsets"].keys()) == ("people", 24, {"x", "y"})
    assert board["subsets"]["x"]["n"] == 12
    both = leaderboards(rows, QUICK, least={"toy": 2})
    assert [one["judge"] for one in both] == ["people", "toy"]
    assert "Leaderboard by people" in table(board)


def test_the_report_has_the_boards_of_judges_and_people(tmp_path):
    answers = [
        {"prompt": f"q{i}", "answers": {"sft": f"s{i}", "ppo": f"p{i}", "dpo": f"d{i}"},
         "verdicts": {"toy <b>": {"ppo": 0.9 - i / 20, "dpo": i / 20}}, "subset": ("chat", "code")[i % 2]}
        for i in range(16)
    ]  # fmt: skip
    people = [
        {"prompt": f"q{i}", "responses": [f"s{i}", f"p{i}"], "ranks": [2, 1] if i % 4 else [1, 2],
         "provenance": {"source": "person", "annotator": "Ann"}}
        for i in range(16)
    ]  # fmt: skip
    for name, rows in (("answers.jsonl", answers), ("people.jsonl", people)):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = {"baseline": "sft", "candidates": ["ppo", "dpo"], "prompts": 16, "judges": ["toy <b>"], "win_rate": {}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "manifest.json").write_text(json.dumps({"stage": "evaluate", "status": "finished"}))
    page = build([tmp_path]).read_text()
    assert "Leaderboard by toy &lt;b&gt;" in page
    assert "Leaderboard by people" in page
    assert "Leaderboard by toy &lt;b&gt;, code" in page
    assert "32 judgements on 16 prompts" in page
    (tmp_path / "people.jsonl").write_text("{")
    assert "people.jsonl:1" in build([tmp_path]).read_text()
