"""Agreement with people: by hand, and as scikit-learn and krippendorff have it."""

import krippendorff
import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from alignment.data.splits import prompt_key
from alignment.evaluate.statistics import Bootstrap
from reward.audit import against
from reward.audit.items import People, items_of, read_gold
from tests.reward.audit.made import asked, both_orders, judged, pair, people, ranking

HOW = Bootstrap(samples=200)


def compared(ps, votes, responses=("first", "second")):
    judge = judged(*(ranking(f"prompt {i}", pair(p), responses=responses) for i, p in enumerate(ps)))
    return against.matches(judge.items, people(judge, votes))


def test_accuracy_counts_ties_half_and_reports_what_it_left_out():
    found = compared([0.9, 0.2, 0.5, None, 0.7], [[1], [1], [1], [1], [0]])
    accuracy = against.accuracy(found, HOW)
    # Decided by people: four. Usable: three, of which right, wrong and a tie: (1 + 0 + 0.5) / 3.
    assert (accuracy["value"], accuracy["coverage"]) == pytest.approx((0.5, 0.75))


def test_accuracy_of_one_order_and_when_consistent():
    judge = judged(ranking("p", both_orders(0.9, 0.2)), ranking("q", both_orders(0.9, 0.6)), ranking("r", pair(0.9)))
    found = against.matches(judge.items, people(judge, [[-1], [1], [1]]))
    # Askings: wrong, wrong (shown first it loses with 0.2, so the first wins); right, wrong (swapped, 0.6 for second).
    assert against.accuracy_one_order(found, HOW)["value"] == pytest.approx(1 / 4)
    consistent = against.accuracy_when_consistent(found, HOW)
    assert (consistent["value"], consistent["share"]) == (0.0, 0.5)  # the third was asked in no order at all


def test_kappa_by_hand():
    # Three of four agree, no ties: p_o = 0.75, p_e = 0.5 over both namings, kappa = 0.25 / 0.5.
    found = against.kappa(compared([0.9, 0.8, 0.3, 0.1], [[1], [1], [-1], [1]]), HOW)
    assert found["value"] == pytest.approx(0.5, abs=1e-12)
    assert found["observed"] == 0.75


def test_kappa_with_ties_by_hand():
    # Judge: first, tie, first, second. People: first, tie, tie, first. p_o = 2/4. Over both namings the judge has ties
    # in 1/4 and each side in 3/8; the people ties in 1/2 and each side in 1/4.
    # p_e = 1/4 * 1/2 + 2 * 3/8 * 1/4 = 5/16. kappa = (8/16 - 5/16) / (11/16) = 3/11.
    found = against.kappa(compared([0.9, 0.5, 0.8, 0.1], [[1], [0], [0], [1]]), HOW)
    assert found["value"] == pytest.approx(3 / 11, abs=1e-12)


def test_kappa_is_the_same_whichever_answer_is_called_the_first():
    draw = np.random.default_rng(1)
    ps, votes = draw.random(60), draw.choice([-1.0, 0.0, 1.0], 60, p=[0.2, 0.2, 0.6])
    turned = draw.random(60) < 0.5
    plain = against.kappa(compared(ps, votes[:, None]), HOW)
    other = against.kappa(compared(np.where(turned, 1 - ps, ps), np.where(turned, -votes, votes)[:, None]), HOW)
    assert plain == pytest.approx(other)
    # Chosen always first, as in preference files: the usual kappa is 0 however right the judge is.
    right = compared([0.9] * 9 + [0.1], [[1]] * 10)
    assert cohen_kappa_score([1] * 9 + [-1], [1] * 10) == 0.0
    assert against.kappa(right, HOW)["value"] == pytest.approx(0.8)


def test_the_interval_is_of_the_same_kappa_as_scikit_learn_has():
    draw = np.random.default_rng(2)
    judge, gold = draw.choice([-1.0, 0.0, 1.0], (2, 80))
    sums = against.tables(judge, gold).sum(axis=0, keepdims=True)
    both, other = np.concatenate([judge, -judge]), np.concatenate([gold, -gold])
    assert against.kappa_of_tables(sums)[0] == pytest.approx(cohen_kappa_score(both, other), rel=1e-12)


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_alpha_is_that_of_the_package_and_its_interval_is_of_the_same(level):
    draw = np.random.default_rng(3)
    units = [draw.choice([-1.0, 0.0, 1.0], draw.integers(2, 5)) for _ in range(40)]
    clusters = [str(i) for i in range(40)]
    found = against._alpha(units, level, clusters, HOW)
    wide = np.full((4, 80), np.nan)  # coders by units, with the mirrored ones
    for place, unit in enumerate([*units, *(-unit for unit in units)]):
        wide[: len(unit), place] = unit
    assert found["value"] == pytest.approx(krippendorff.alpha(wide, level_of_measurement=level), rel=1e-12)
    values = np.array([-1.0, 0.0, 1.0])
    if level == "interval":
        mine = against._interval_alpha(np.sum([against._squares(unit) for unit in units], axis=0, keepdims=True))
    else:
        sums = np.sum([against._coincidences(unit, values) for unit in units], axis=0, keepdims=True)
        mine = against._coincidence_alpha(sums, 3, level)
    assert mine[0] == pytest.approx(found["value"], rel=1e-9)
    assert found["low"] < found["value"] < found["high"]


def test_nominal_alpha_by_hand():
    # One of two comparisons agreed. Mirrored: units (1, 1), (1, -1), (-1, -1), (-1, 1); 8 values, 4 of
    # each. D_o = 4 / 8 (each disagreeing unit adds 2), D_e = 2 * 4 * 4 / (8 * 7) = 4/7. alpha = 1 - 7/8.
    found = against.alpha(compared([0.9, 0.9], [[1], [-1]]), HOW)
    assert found["nominal"]["value"] == pytest.approx(1 / 8, abs=1e-12)


def test_the_interval_level_sees_how_sure_the_judge_is():
    sure, unsure = (against.alpha(compared([p, 1 - p], [[1], [-1]]), HOW)["interval"]["value"] for p in (0.99, 0.6))
    assert sure > unsure


def test_alpha_of_many_soft_labels_needs_no_table_of_all_their_values():
    draw = np.random.default_rng(0)
    ps = draw.random(2_000)  # 4,000 values with the mirror images: a table of each against each takes 512 GB
    gold = np.where(draw.random(2_000) < ps, 1.0, -1.0)
    found = against.alpha(compared(list(ps), [[vote] for vote in gold]), Bootstrap(samples=10))["interval"]
    # Values u = 2p - 1 and v with their mirror images: n = 8,000 with mean 0, D_o = mean (u - v)^2, D_e = 2 mean of
    # squares, times n / (n - 1).
    u = 2 * ps - 1
    expected = 1 - np.mean((u - gold) ** 2) / (np.mean(u**2) + np.mean(gold**2)) * 7_999 / 8_000
    assert found["value"] == pytest.approx(expected, rel=1e-9)


def test_human_ceiling_leaves_one_out():
    # Three people say 1, 1, -1. Against the others: 1 of {1, -1} is even and does not count, the same again, and -1
    # against {1, 1} is wrong: 0 of 1. Two who agree: 2 of 2. So 2 of 3. The judge is right all 3 times.
    found = against.human_ceiling(compared([0.9, 0.9, 0.9], [[1, 1, -1], [1, 1], [1]]), HOW)
    assert found["value"] == pytest.approx(2 / 3)
    assert found["judge"]["value"] == pytest.approx(1.0)
    assert found["judge_behind"]["value"] == pytest.approx(-1 / 3)
    assert against.human_ceiling(compared([0.9], [[1]]), HOW) is None


def test_length_bias_of_judge_and_people_on_the_same_comparisons():
    # The first answer is longer. The judge takes it in both, people in one: +0.5, 0, and a difference of 0.5.
    found = against.length_biases(compared([0.9, 0.8], [[1], [-1]], ("a longer answer", "short")), HOW)
    assert [found[key]["value"] for key in ("judge_length_bias", "people_length_bias")] == [0.5, 0.0]
    assert found["length_bias_difference"]["value"] == pytest.approx(0.5)


def test_people_are_matched_by_texts_in_either_order_and_any_wrapping(tmp_path):
    gold = tmp_path / "gold.jsonl"
    gold.write_text('{"prompt": [{"role": "user", "content": " say.\\n"}], "chosen": "second", "rejected": "first"}\n')
    judge = judged(ranking("Say.", pair(0.9)), ranking("Other.", pair(0.9)))
    (match,) = against.matches(judge.items, read_gold(str(gold)))
    assert match.votes == (-1.0,)  # people prefer the second, the judge the first
    assert prompt_key("Say.") != prompt_key([{"role": "system", "content": "Say."}])


def test_the_votes_of_a_person_are_averaged_and_cannot_say_is_none():
    found, other = People(), People()
    for probability in (0.9, 0.1, 0.2, 0.5, None):
        for item in items_of([ranking("p", pair(probability))]):
            found.add(item, "Ann")
            other.add(item, "Bob")
    (item,) = items_of([ranking("p", pair(0.9))])
    assert found.on(item) == {"Ann": -0.25}
    assert (found.unsure, found.repeated(found.votes)) == (1, 3)
    (match,) = against.matches([item], found)
    assert (match.gold, match.share) == (-1.0, 0.375)
    found.merge(other)
    assert found.on(item) == {"Ann": -0.25, "Bob": -0.25}
    assert (found.unsure, found.repeated(found.votes)) == (2, 6)


def test_missing_verdicts_and_ties_count_as_wrong_in_the_strict_accuracy():
    right, tie, missing = (
        both_orders(0.9, 0.1),
        both_orders(0.9, 0.9),
        pair(None, asked("first", None), asked("swapped", 0.2)),
    )
    judge = judged(
        *(ranking(f"p{place}", one) for place, one in enumerate((right, tie, missing, both_orders(0.9, 0.7))))
    )
    found = against.matches(judge.items, people(judge, [[1]] * 4))
    how = Bootstrap(samples=10)
    assert against.accuracy(found, how)["value"] == pytest.approx((1 + 0.5 + 1) / 3)  # the one without a label left out
    assert against.accuracy_strict(found, how)["value"] == pytest.approx(2 / 4)
    assert against.both_orders_correct(found, how)["value"] == pytest.approx(1 / 4)
