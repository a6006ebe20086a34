"""Best-of-n against all draws, and by hand."""

import itertools
import math
import random

import pytest

from alignment.evaluate.best_of_n import chance_of_best, expected_best, kl_of_best_of_n, powers_of_two


def test_chances_by_hand():
    # of 4 answers the pairs are 6; the second best of all is the best of 1 pair, the third of 2, the fourth of 3
    assert chance_of_best(4, 2) == pytest.approx([0, 1 / 6, 2 / 6, 3 / 6])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_the_expectation_is_the_mean_over_all_draws(n):
    generator = random.Random(n)
    scores = [1.0, -2.0, 1.0, 0.5, 1.0]  # three are equal: the draw decides
    gold = [generator.gauss(0, 1) for _ in scores]
    means = []
    for drawn in itertools.combinations(range(5), n):
        top = max(scores[i] for i in drawn)
        best = [gold[i] for i in drawn if scores[i] == top]
        means.append(sum(best) / len(best))
    assert expected_best(scores, gold, n) == pytest.approx(sum(means) / len(means), abs=1e-12)


def test_kl_by_hand():
    assert kl_of_best_of_n(1) == 0
    assert kl_of_best_of_n(4) == pytest.approx(math.log(4) - 0.75)  # 0.6363


def test_the_curves_places():
    assert powers_of_two(1) == [1]
    assert powers_of_two(4) == [1, 2, 4]
    assert powers_of_two(6) == [1, 2, 4, 6]


def test_more_than_there_are():
    with pytest.raises(ValueError, match="best of 5 cannot be drawn from 4"):
        chance_of_best(4, 5)
    with pytest.raises(ValueError, match="one of each for every answer"):
        expected_best([1, 2], [1], 1)
