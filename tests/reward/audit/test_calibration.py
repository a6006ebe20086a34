"""Calibration errors by hand, and maps that mend what was bent on purpose."""

import math

import numpy as np
import pytest
from scipy.special import expit, logit

from alignment.errors import DataError
from alignment.evaluate.statistics import Bootstrap, calibration_error
from reward.audit import calibration as c
from reward.audit.against import matches
from tests.reward.audit.made import asked, judged, pair, people, ranking


def bent(size: int, temperature: float, seed: int = 0):
    """Probabilities of a judge that is too sure by a factor in the logit, and outcomes of the true ones."""
    draw = np.random.default_rng(seed)
    z = draw.normal(0, 1.5, size)
    return expit(z * temperature), (draw.random(size) < expit(z)).astype(float), [str(i) for i in range(size)]


def test_ece_by_hand():
    # Confidences 0.92, 0.98 (the first wins) and 0.82 (the second): bins [0.9, 0.95), [0.95, 1] and [0.8, 0.85).
    p, votes = np.array([0.92, 0.98, 0.18]), np.array([1.0, 0.0, 0.0])
    # |1 - 0.92| = 0.08, |0 - 0.98| = 0.98, |1 - 0.82| = 0.18, each a third.
    assert calibration_error(p, votes) == pytest.approx((0.08 + 0.98 + 0.18) / 3)
    # In one bin errors cancel: accuracy 2/3, mean confidence 2.72 / 3.
    assert calibration_error(p, votes, bins=1) == pytest.approx(abs(2 / 3 - 2.72 / 3))
    assert calibration_error(np.array([0.5]), np.array([1.0])) == 0  # a coin is right half the time


def test_brier_and_nll_by_hand():
    p, votes = np.array([0.9, 0.4]), np.array([1.0, 1.0])
    assert c.brier(p, votes) == pytest.approx((0.01 + 0.36) / 2)
    assert c.nll(p, votes) == pytest.approx(-(math.log(0.9) + math.log(0.4)) / 2)
    # Two people, one for each: the mean of both votes' squares and logarithms.
    split = np.array([0.5])
    assert c.brier(np.array([0.9]), split) == pytest.approx((0.01 + 0.81) / 2)
    assert c.nll(np.array([0.5]), split) == pytest.approx(math.log(2))
    assert c.nll(np.array([0.0]), np.array([1.0])) == pytest.approx(-math.log(c.CLIP))  # not infinite


def test_temperature_finds_what_bent_the_judge():
    p, votes, where = bent(20_000, 2.5)
    found = c.fit(p, votes, where, "temperature")
    assert found.parameters["temperature"] == pytest.approx(2.5, rel=0.05)
    after = found.apply(p)
    assert np.array_equal(after > 0.5, p > 0.5)  # no label changes sides
    assert calibration_error(after, votes) < 0.02 < 0.1 < calibration_error(p, votes)


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_maps_do_not_care_which_answer_is_the_first(method):
    p, votes, where = bent(500, 3.0)
    turned = np.random.default_rng(1).random(500) < 0.5
    one = c.fit(p, votes, where, method)
    other = c.fit(np.where(turned, 1 - p, p), np.where(turned, 1 - votes, votes), where, method)
    grid = np.linspace(0.01, 0.99, 51)
    assert one.apply(grid) == pytest.approx(other.apply(grid), abs=1e-4)
    assert one.apply(1 - grid) == pytest.approx(1 - one.apply(grid), abs=1e-9)
    assert one.apply(np.array([0.5]))[0] == pytest.approx(0.5, abs=1e-12)
    assert (np.diff(one.apply(grid)) >= 0).all()


def test_after_is_measured_on_prompts_the_map_never_saw():
    p, votes, _ = bent(60, 3.0)
    where = [str(i // 6) for i in range(60)]
    after = c.crossfitted(p, votes, where, "isotonic")
    for prompt in map(str, range(10)):
        held = np.array([w == prompt for w in where])
        votes_changed = np.where(held, 1 - votes, votes)  # what people say of a prompt cannot move its own map
        assert c.crossfitted(p, votes_changed, where, "isotonic")[held] == pytest.approx(after[held])
    assert c.nll(c.fit(p, votes, where, "isotonic").apply(p), votes) < c.nll(after, votes)


def test_labels_keep_the_judges_verdicts():
    judge = judged(
        *(ranking(f"p{i}", pair(0.99, asked("first", 0.99), asked("swapped", 0.01)), judge="toy") for i in range(40)),
        ranking("tie", pair(0.5)), ranking("failed", pair(None)),
    )  # fmt: skip
    votes = [[1.0] if i % 4 else [-1.0] for i in range(40)]  # right three times in four, and says 0.99
    found = c.fit_matches(matches(judge.items, people(judge, [*votes, [], []])), "temperature")
    # The best probability is 3/4 itself: logit(0.99) / T = logit(0.75).
    assert found.parameters["temperature"] == pytest.approx(float(logit(0.99) / logit(0.75)), rel=1e-3)
    rows = found.on(judge.rankings)
    assert rows[0].pairs[0].probability == pytest.approx(0.75, abs=1e-3)
    assert rows[0].pairs[0].verdicts == judge.rankings[0].pairs[0].verdicts
    assert rows[0].provenance["calibration"]["temperature"] == found.parameters["temperature"]
    assert (rows[40].pairs[0].probability, rows[40].pairs[0].status) == (0.5, "tie")
    assert (rows[41].pairs[0].probability, rows[41].pairs[0].status) == (None, "parse_error")


def test_too_few_people_fit_nothing():
    judge = judged(*(ranking(f"p{i}", pair(0.9)) for i in range(5)))
    found = matches(judge.items, people(judge, [[1.0]] * 5))
    with pytest.raises(DataError, match=r"at least 20 comparisons.*5 of 5 match"):
        c.fit_matches(found, "temperature")
    numbers = c.calibration(found, Bootstrap(samples=50))
    assert "temperature" not in numbers
    assert numbers["before"]["brier"]["value"] == pytest.approx(0.01)
