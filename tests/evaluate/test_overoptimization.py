"""The fits of Gao et al. on curves whose numbers are known."""

import math
import random

import numpy
import pytest

from alignment.evaluate.overoptimization import FEWEST_POINTS, fit

PLACES = [0.2 * i for i in range(21)]  # 0 to 4


def rl(d, alpha, beta, start=0.0):
    return start + (d * (alpha - beta * math.log(d)) if d else 0.0)


def test_numbers_without_noise_come_back():
    found = fit(PLACES, [rl(d, 1.5, 0.9, start=-2.0) for d in PLACES])
    assert (found.start, found.alpha, found.beta) == pytest.approx((-2.0, 1.5, 0.9), abs=1e-9)
    # R' = alpha - beta ln d - beta = 0 at ln d = 1.5 / 0.9 - 1 = 2/3, d = 1.9477; R there is beta d = 1.7530
    assert found.peak == pytest.approx(math.exp(2 / 3))
    assert found.at(found.peak) == pytest.approx(-2 + 0.9 * math.exp(2 / 3))
    assert found.lost == pytest.approx(0.9 * math.exp(2 / 3) - rl(4.0, 1.5, 0.9))
    assert found.has_turned


def test_best_of_n_has_its_own_form():
    found = fit(PLACES, [d * (2.0 - 0.4 * d) for d in PLACES], "best_of_n")
    assert (found.alpha, found.beta) == pytest.approx((2.0, 0.4))
    assert found.peak == pytest.approx(2.5)  # alpha / (2 beta)
    assert found.lost == pytest.approx(2.5 * 1.0 - 4.0 * 0.4)  # 2.5 - 1.6
    assert fit(PLACES, [d * (-1.0 - 0.4 * d) for d in PLACES], "best_of_n").peak == 0.0


def test_the_errors_are_those_of_least_squares():
    generator = numpy.random.default_rng(3)
    d = numpy.linspace(0.1, 4, 400)
    truth = numpy.array([rl(x, 1.5, 0.9) for x in d])
    betas, errors, inside = [], [], 0
    for _ in range(200):
        found = fit(d, truth + generator.normal(0, 0.5, len(d)))
        betas.append(found.beta)
        errors.append(found.beta_error)
        inside += abs(found.beta - 0.9) < 1.96 * found.beta_error
    assert numpy.std(betas) == pytest.approx(numpy.mean(errors), rel=0.15)
    assert 0.9 < inside / 200 < 0.99


def test_residuals_that_follow_one_another_widen_the_errors():
    generator = random.Random(0)
    noise, last = [], 0.0
    for _ in PLACES:
        last = 0.8 * last + generator.gauss(0, 0.2)
        noise.append(last)
    scores = [rl(d, 1.5, 0.9) + e for d, e in zip(PLACES, noise, strict=True)]
    shuffled = list(zip(PLACES, scores, strict=True))
    generator.shuffle(shuffled)
    in_order, out_of_order = fit(PLACES, scores), fit(*zip(*shuffled, strict=True))
    assert in_order.beta == pytest.approx(out_of_order.beta)
    assert in_order.beta_error > 1.2 * out_of_order.beta_error


def test_a_rise_that_goes_on_has_not_turned():
    found = fit(PLACES, [rl(d, 3.0, 0.9) for d in PLACES])  # peak at e^(3/0.9 - 1) = 10.3
    assert found.is_determined
    assert found.peak == pytest.approx(math.exp(3 / 0.9 - 1))
    assert (found.has_turned, found.lost) == (False, 0.0)


def test_a_line_or_noise_determines_nothing():
    generator = random.Random(1)
    for scores in ([2 * d + generator.gauss(0, 0.1) for d in PLACES], [generator.gauss(0, 1) for _ in PLACES]):
        found = fit(PLACES, scores)
        assert not found.is_determined
        assert not found.has_turned


def test_a_fall_within_the_noise_is_not_a_turn():
    generator = random.Random(5)
    scores = [rl(d, 1.9, 0.9) + generator.gauss(0, 0.35) for d in PLACES]  # peak at 3.04, lost 0.11 at 4
    found = fit(PLACES, scores)
    assert found.peak < found.furthest
    assert not found.has_turned


def test_too_few_points_or_all_in_one_place():
    assert fit(PLACES[: FEWEST_POINTS - 1], PLACES[: FEWEST_POINTS - 1]) is None
    assert fit([1.0] * 20, PLACES[:20]) is None
    assert fit([1.0 + 1e-9 * i for i in range(20)], PLACES[:20]) is None
