"""Best-of-n: of n answers to a prompt the one that a reward model likes best, without any training."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def chance_of_best(answers: int, n: int) -> NDArray[np.float64]:
    """Probability that each of `answers`, in rising order of score, is the best of n drawn without replacement.

    C(i-1, n-1) / C(N, n) for the i-th of N: appendix I of https://arxiv.org/abs/2112.09332. One set of N answers so
    serves every n up to N, without bias.

    Raises: ValueError if n is not between 1 and `answers`.
    """
    if not 1 <= n <= answers:
        raise ValueError(f"the best of {n} cannot be drawn from {answers} answers")
    return np.array([math.comb(rank, n - 1) for rank in range(answers)]) / math.comb(answers, n)


def expected_best(scores: ArrayLike, gold: ArrayLike, n: int) -> float:
    """Expected gold score of the answer, of n drawn without replacement, that `scores` likes best.

    Answers of equal score are drawn alike: each gets the mean chance of its equals.

    Args:
        scores, gold: (answers,) of one prompt, higher is better.
    """
    score, truth = np.asarray(scores, dtype=np.float64), np.asarray(gold, dtype=np.float64)
    if score.ndim != 1 or score.shape != truth.shape:
        raise ValueError(f"scores of shape {score.shape} and gold of {truth.shape}: one of each for every answer")
    order = np.argsort(score, kind="stable")
    _, equals = np.unique(score[order], return_inverse=True)
    chance = np.bincount(equals, weights=chance_of_best(len(score), n)) / np.bincount(equals)
    return float(chance[equals] @ truth[order])


def kl_of_best_of_n(n: int) -> float:
    """KL of best-of-n from the policy that answers, log n - (n-1)/n in nats an answer.

    Appendix G.3 of https://arxiv.org/abs/2009.01325. An upper bound (https://arxiv.org/abs/2401.01879), close where
    answers hardly repeat.
    """
    return math.log(n) - (n - 1) / n


def powers_of_two(most: int) -> Sequence[int]:
    """1, 2, 4, … up to `most`, and `most` itself."""
    return sorted({2**k for k in range(most.bit_length()) if 2**k <= most} | {most})
