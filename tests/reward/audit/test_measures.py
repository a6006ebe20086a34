"""What labels say of their judge, counted by hand."""

import math

import numpy as np
import pytest

from alignment.evaluate.statistics import Bootstrap
from reward.audit import measures
from reward.audit.items import items_of
from tests.reward.audit.made import asked, both_orders, pair, ranking

HOW = Bootstrap(samples=200)


def items(*pairs, responses=("first", "second")):
    return list(items_of([ranking(f"prompt {i}", one, responses=responses) for i, one in enumerate(pairs)]))


# Probabilities are of the answer shown first: (0.9, 0.2) is consistent, (0.9, 0.8) takes the first both times,
# (0.1, 0.3) the second both times, (0.5, 0.5) is a tie both times, (0.5, 0.4) a tie and a win.
FIVE = items(both_orders(0.9, 0.2), both_orders(0.9, 0.8), both_orders(0.1, 0.3), both_orders(0.5, 0.5),
             both_orders(0.5, 0.4))  # fmt: skip


def test_consistency():
    found = measures.consistency(FIVE, HOW)
    assert found["value"] == pytest.approx(2 / 5)  # the first and the tie
    assert (found["n"], found["clusters"]) == (5, 5)


def test_same_position():
    found = measures.same_position(FIVE, HOW)
    assert (found["value"], found["first"], found["second"]) == pytest.approx((2 / 5, 1 / 5, 1 / 5))


def test_position_bias():
    found = measures.position_bias(FIVE, HOW)
    # First shown wins: 1 of 2, 2 of 2, 0 of 2, half of each of two ties, half and 0: (1 + 2 + 0 + 1 + 0.5) / 10 = 0.45.
    assert found["value"] == pytest.approx(0.45 - 0.5)
    # Mean of all ten probabilities: (1.1 + 1.7 + 0.4 + 1.0 + 0.9) / 10 = 0.51.
    assert found["soft"] == pytest.approx(0.01)


def test_an_order_that_failed_counts_nowhere():
    one = pair(None, asked("first", 0.9), asked("swapped", None))
    assert measures.consistency(items(one), HOW) is None
    assert measures.position_bias(items(one, both_orders(0.9, 0.1)), HOW)["n"] == 1


def test_repeats_are_matched_with_each_other():
    one = pair(0.6, asked("first", 0.9), asked("swapped", 0.2), asked("first", 0.8, repeat=1),
               asked("swapped", 0.7, repeat=1))  # fmt: skip
    assert measures.consistency(items(one), HOW)["value"] == pytest.approx(1 / 2)


def test_self_consistency():
    said = [asked("first", p, repeat=i) for i, p in enumerate((0.9, 0.8, 0.3))]
    said += [asked("swapped", p, repeat=i) for i, p in enumerate((0.2, 0.4))]
    # Pairs of repeats: one of three agrees when shown first, one of one when swapped: (1/3 + 1) / 2.
    assert measures.self_consistency(items(pair(0.7, *said)), HOW)["value"] == pytest.approx(2 / 3)
    assert measures.self_consistency(FIVE, HOW) is None


def test_coverage_and_ties():
    some = items(pair(0.9), pair(None), pair(0.5), pair(0.5))
    found = measures.coverage(some, HOW)
    assert found["value"] == pytest.approx(3 / 4)
    assert found["statuses"] == {"ok": 1, "parse_error": 1, "tie": 2}
    same = list(items_of([ranking("p", pair(0.5), responses=("same", "same"))]))
    ties = measures.tie_rate(some + same, HOW)
    assert (ties["value"], ties["identical_answers"]) == (pytest.approx(2 / 3), 1)
    assert ties["certainty"] == pytest.approx((0.8 + 0 + 0) / 3)


def test_length_bias():
    long, short = ("a longer answer", "short"), ("short", "a longer answer")
    some = items(pair(0.9), pair(0.5), responses=long) + items(pair(0.7), responses=short)
    some += items(pair(0.9), responses=("equal", "other"))
    # The longer wins, ties, loses; the fourth pair is of one length: (1 + 0.5 + 0) / 3.
    assert measures.length_bias(some, HOW)["value"] == pytest.approx(0.5 - 0.5)
    assert measures.length_bias(some, HOW)["n"] == 3


def triads(*ps, responses=("a", "b", "c")):
    ends = [(0, 1), (0, 2), (1, 2)]
    return [pair(p, ends=both) for p, both in zip(ps, ends, strict=True)], responses


def test_cyclic_triads():
    def triad(prompt, *ps):
        pairs, responses = triads(*ps)
        return ranking(prompt, *pairs, responses=responses)

    # a > b, c > a, b > c is a circle; a > b, a > c, b > c a ranking; a tie decides nothing.
    some = list(items_of([triad("p", 0.9, 0.1, 0.9), triad("q", 0.9, 0.9, 0.9), triad("r", 0.9, 0.5, 0.9)]))
    found = measures.cyclic_triads(some, HOW)
    assert (found["value"], found["cyclic"], found["n"]) == (pytest.approx(1 / 2), 1, 2)
    other_way = list(items_of([triad("p", 0.1, 0.9, 0.1)]))  # b > a, a > c, c > b
    assert measures.cyclic_triads(other_way, HOW)["value"] == 1.0


def test_a_coin_has_a_quarter_of_its_triads_circular():
    draw = np.random.default_rng(0)
    ends = [(i, j) for i in range(5) for j in range(i + 1, 5)]
    rows = [
        ranking(f"p{n}", *(pair(float(draw.integers(2)), ends=both) for both in ends), responses=list("abcde"))
        for n in range(400)
    ]
    # 5 answers have 10 triads; 4,000 of them, so the standard error is about 0.007.
    assert measures.cyclic_triads(list(items_of(rows)), HOW)["value"] == pytest.approx(0.25, abs=0.02)


def test_mass():
    some = items(pair(0.9, asked("first", 0.9, mass=0.9), asked("swapped", 0.1, mass=0.5)), both_orders(0.9, 0.1))
    assert measures.mass(some, HOW)["value"] == pytest.approx(0.7)
    assert measures.mass(FIVE, HOW) is None


def test_the_cost_of_a_thousand_labels():
    some = items(pair(0.9), pair(0.2), pair(None), pair(0.5))
    usage = {"calls": 8, "prompt_tokens": 900, "completion_tokens": 60, "cost": 0.03, "currency": "USD", "seconds": 1.5}
    found = measures.spent(usage, some)
    # Three of four were accepted, so a thousand cost 1000 / 3 times what these did.
    assert found["per_thousand"] == pytest.approx({"cost": 10, "tokens": 320_000, "seconds": 500, "calls": 8_000 / 3})
    assert measures.spent(usage | {"cost": None}, some)["per_thousand"]["cost"] is None
    assert measures.spent({}, some) is None


def test_intervals_resample_prompts_not_comparisons():
    # One prompt with 50 consistent pairs, one with 50 inconsistent ones: knowing two prompts is knowing little.
    rows = [ranking("good", *[both_orders(0.9, 0.1)] * 50), ranking("bad", *[both_orders(0.9, 0.9)] * 50)]
    found = measures.consistency(list(items_of(rows)), HOW)
    assert (found["value"], found["low"], found["high"]) == (0.5, 0.0, 1.0)
    assert not math.isnan(found["low"])
