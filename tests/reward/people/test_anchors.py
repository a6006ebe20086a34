"""Where three of four judges err on the same items, the mixture warns, and gold labels of some pairs put it right."""

import json

import numpy as np
import pytest

from alignment.errors import AlignmentError, DataError
from benchmarks.mix_warnings import honest, together, warned
from reward.people.anchors import FALSE_ALARMS
from reward.people.dawid_skene import FIRST, SECOND, Labels, accuracy_on_gold, estimate
from reward.people.mix import mix

PAIRS, WRONG = 200, 0.81  # the share of items on which the three err together
JUDGES = ("one", "two", "three", "alone")


@pytest.fixture(scope="module")
def crowd():
    """Truths, and each judge's verdicts: True is the first answer."""
    draw = np.random.default_rng(0)
    truth = draw.random(PAIRS) < 0.5
    hard = draw.random(PAIRS) < WRONG
    together = [np.where(hard ^ (draw.random(PAIRS) < 0.03), ~truth, truth) for _ in range(3)]
    return truth, [*together, np.where(draw.random(PAIRS) < 0.9, truth, ~truth)]


def written(folder, verdicts, gold=()):
    """Write the judges' labels and people's; returns the files."""
    files = {}
    for name, said in zip(JUDGES, verdicts, strict=True):
        rows = [
            {"prompt": f"p{i}", "responses": ["first", "second"], "provenance": {"judge": name},
             "pairs": [{"first": 0, "second": 1, "probability": float(first), "status": "ok"}]}
            for i, first in enumerate(said)
        ]  # fmt: skip
        files[name] = folder / f"{name}.jsonl"
        files[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [
        {"prompt": f"P{i}", "chosen": "first" if first else "second ", "rejected": "second" if first else "first"}
        for i, first in enumerate(gold)
    ]
    files["gold"] = folder / "gold.jsonl"
    files["gold"].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return files


def mixed(files, output, **options):
    told: list[str] = []
    mix([str(files[name]) for name in JUDGES], output, bootstrap=20, tell=told.append, **options)
    record = json.loads(output.with_name("mixed.labellers.json").read_text())
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    right = {row["labeller"]: row for row in record["labellers"]}
    return right, rows, record, " ".join(" ".join(told).split())


def test_without_gold_it_is_inverted_and_warns(tmp_path, crowd):
    truth, verdicts = crowd
    assert np.mean(verdicts[0] == truth) < 0.25
    files = written(tmp_path, verdicts, truth[:20])
    found, _, record, said = mixed(files, tmp_path / "mixed.jsonl")
    assert found["one"]["accuracy"] > 0.9  # though it is right in a fifth
    assert found["alone"]["accuracy"] < 0.5
    assert "!! alone is rated" in said
    assert "Either it errs, or the others err on the same items" in said
    assert len(record["warnings"]) == 1


def test_gold_of_a_tenth_of_the_pairs_turns_it(tmp_path, crowd):
    truth, verdicts = crowd
    files = written(tmp_path, verdicts, truth[:20])
    found, rows, record, said = mixed(files, tmp_path / "mixed.jsonl", gold=str(files["gold"]))
    assert found["one"]["accuracy"] < 0.4
    assert found["alone"]["accuracy"] > 0.65  # 0.9 * 0.81 + 0.1 * 0.19 = 0.75 in agreement with the three, turned
    probabilities = np.array([row["pairs"][0]["probability"] for row in rows])
    assert np.mean((probabilities > 0.5) == truth) > 0.75
    assert list(probabilities[:20] > 0.5) == list(truth[:20])
    assert set(probabilities[:20]) <= {0.0, 1.0}  # the truth of an anchor is known
    assert record["gold"] == {"file": str(files["gold"]), "pairs": 20}
    right = float(np.mean(verdicts[0][:20] == truth[:20]))
    assert found["one"]["on_gold"]["accuracy"] == pytest.approx(right)
    assert f"{100 * right:.1f} % of 20" in said
    assert "one would be rated 9" in said
    assert "labellers err on the same items" in said


def test_honest_judges_have_no_warning_and_gold_changes_little(tmp_path):
    draw = np.random.default_rng(1)
    truth = draw.random(PAIRS) < 0.5
    verdicts = [np.where(draw.random(PAIRS) < right, truth, ~truth) for right in (0.95, 0.9, 0.85, 0.8)]
    files = written(tmp_path, verdicts, truth[:40])
    alone, _, record, said = mixed(files, tmp_path / "mixed.jsonl")
    assert record["warnings"] == []
    assert "!!" not in said
    with_gold, _, record, _ = mixed(files, tmp_path / "mixed.jsonl", gold=str(files["gold"]))
    assert record["warnings"] == []
    for name in JUDGES:
        assert with_gold[name]["accuracy"] == pytest.approx(alone[name]["accuracy"], abs=0.05)


@pytest.mark.parametrize("gold", [0, 30])
@pytest.mark.parametrize(
    ("accuracies", "pairs", "runs"),
    [((0.7, 0.9, 0.9, 0.9), 30, 100), ((0.7, 0.7, 0.7), 30, 100), ((0.6, 0.6, 0.6), 100, 20)],
)
def test_of_a_hundred_judges_that_err_independently_one_is_warned_of_at_most(accuracies, pairs, runs, gold):
    draw = np.random.default_rng(0)
    count = sum(warned(*honest(draw, pairs, accuracies), gold) for _ in range(runs))
    assert count <= FALSE_ALARMS * runs * len(accuracies)


@pytest.mark.parametrize(("pairs", "gold"), [(100, 0), (30, 30)])
def test_three_that_err_together_are_found_in_few_pairs(pairs, gold):
    draw = np.random.default_rng(0)
    assert sum(warned(*together(draw, pairs, WRONG), gold) > 0 for _ in range(20)) >= 19


def test_the_accuracy_of_two_labellers_is_contradicted_by_no_gold():
    draw = np.random.default_rng(0)  # agreement alone does not tell which of them errs, so there is no estimate
    assert not any(warned(*honest(draw, 300, (0.7, 0.9)), 300) for _ in range(10))


def test_one_judge_is_told_apart_by_ten_anchors():
    pair = np.arange(30)
    outcomes = np.zeros((30, 3))
    outcomes[:24, FIRST] = outcomes[24:, SECOND] = 1.0
    gold = np.full(30, -1)
    gold[4:28] = FIRST  # of which it names 20
    labels = Labels(pair, np.zeros(30, dtype=np.int64), outcomes, 30, 1, gold)
    share, count = accuracy_on_gold(labels)
    assert (share[0], count[0]) == (pytest.approx(20 / 24), 24)
    found = estimate(labels, smoothing=0.0)
    assert found.accuracy[0] == pytest.approx(20 / 24, abs=0.01)
    assert list(found.truth[4]) == [1.0, 0.0, 0.0]


def test_gold_that_is_of_nothing_here_is_refused(tmp_path, crowd):
    files = written(tmp_path, crowd[1], crowd[0][:5])
    files["gold"].write_text('{"prompt": "other", "chosen": "first", "rejected": "second"}\n')
    with pytest.raises(DataError, match="none of its 1 decided comparisons is among the labels"):
        mixed(files, tmp_path / "mixed.jsonl", gold=str(files["gold"]))
    for absent in ("", "nope/gold"):
        with pytest.raises(DataError, match=f"--gold {absent}: does not exist"):
            mixed(files, tmp_path / "mixed.jsonl", gold=absent)
    with pytest.raises(AlignmentError, match="is one of the files to read"):
        mixed(files, files["gold"], gold=str(files["gold"]))
    assert not (tmp_path / "mixed.jsonl").exists()
