"""Where a score that is climbed parts from a score that is not: the fits of Gao et al., https://arxiv.org/abs/2210.10760.

With d = sqrt(KL) from where the policy began, their section 3.1 finds the true score to be

    R(d) = d (alpha - beta d)        of best-of-n
    R(d) = d (alpha - beta log d)    of reinforcement learning

Both are linear in alpha and beta, so they are fitted by least squares, together with the score at d = 0.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Form = Literal["rl", "best_of_n"]
FEWEST_POINTS = 8  # three numbers are fitted, and noise is estimated from what is left
SURE = 2.0  # standard errors


@dataclass(frozen=True, slots=True)
class Fit:
    """R(d) - R(0) by one of the two forms; errors are standard errors, widened where residuals follow one another."""

    form: Form
    start: float  # R(0)
    alpha: float
    beta: float
    beta_error: float
    furthest: float  # largest d that was seen
    lost: float  # R(peak) - R(furthest), 0 if the peak is further
    lost_error: float

    def at(self, d: float) -> float:
        """The fitted score."""
        return self.start + self.alpha * d - self.beta * _bend(self.form)(d)

    @property
    def is_determined(self) -> bool:
        """Whether the data show that the curve bends downwards; if not, the peak is unknown."""
        return self.beta > SURE * self.beta_error

    @property
    def peak(self) -> float:
        """Where R is largest: e^(alpha/beta - 1), or alpha / (2 beta); 0 if it falls from the start."""
        if self.form == "best_of_n":
            return max(0.0, self.alpha / (2 * self.beta))
        return math.exp(min(self.alpha / self.beta - 1, 700.0))

    @property
    def has_turned(self) -> bool:
        """Whether the score has surely fallen from the peak to the furthest point."""
        return self.is_determined and self.peak < self.furthest and self.lost > SURE * self.lost_error


def fit(distances: Sequence[float], scores: Sequence[float], form: Form = "rl") -> Fit | None:
    """Fit one of the forms by least squares.

    Args:
        distances: sqrt of the KL in nats an answer, in the order in which they were seen. scores: true ones, at each.

    Returns: None if there are too few points, or they are too close together to estimate the three numbers.
    """
    d, y = np.asarray(distances, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if len(d) < FEWEST_POINTS or len(np.unique(d)) < FEWEST_POINTS:
        return None
    bend = _bend(form)
    columns = np.stack([np.ones_like(d), d, -np.array([bend(one) for one in d])], axis=1)
    if np.linalg.matrix_rank(columns, tol=1e-6 * np.linalg.norm(columns)) < 3:
        return None
    found, *_ = np.linalg.lstsq(columns, y, rcond=None)
    covariance = _covariance(columns, y - columns @ found)
    start, alpha, beta = map(float, found)
    furthest = float(d.max())
    best = Fit(form, start, alpha, beta, math.sqrt(covariance[2, 2]), furthest, 0.0, 0.0)
    if beta <= 0 or best.peak >= furthest:
        return best
    fall = np.array([0.0, best.peak - furthest, bend(furthest) - bend(best.peak)])
    error = math.sqrt(max(0.0, float(fall @ covariance @ fall)))
    return Fit(form, start, alpha, beta, best.beta_error, furthest, float(fall @ found), error)


def _bend(form: Form) -> Callable[[float], float]:
    """What beta multiplies: d^2, or d log d, which is 0 at 0."""
    return (lambda d: d * d) if form == "best_of_n" else (lambda d: d * math.log(d) if d > 0 else 0.0)


def _covariance(columns: Array, residuals: Array) -> Array:
    """Covariance of the fitted numbers, widened by (1 + r) / (1 - r) for residuals of lag-one correlation r > 0.

    Errors of successive updates are correlated, so they count for fewer: the factor is that of a mean of an
    autoregressive series of order one.
    """
    rows, numbers = columns.shape
    variance = float(residuals @ residuals) / (rows - numbers)
    energy = float(residuals @ residuals)
    lag_one = float(residuals[1:] @ residuals[:-1]) / energy if energy > 0 else 0.0
    lag_one = min(max(lag_one, 0.0), 0.95)
    covariance: Array = np.linalg.inv(columns.T @ columns) * variance * (1 + lag_one) / (1 - lag_one)
    return covariance
