"""KTO's weights of good and bad answers, from the balance of the labels.

The paper asks for 1 ≤ λ_D n_D / (λ_U n_U) ≤ 4/3, where n_D answers are good and n_U bad, λ_D is `desirable_weight` and
λ_U `undesirable_weight` (https://arxiv.org/abs/2402.01306, eq. 8, as TRL cites it). With probabilities, n_D is the sum
of p and n_U that of 1 - p, the expected numbers. A weight that the recipe leaves null is the one nearest to 1 with
which the ratio lies in this range; of two nulls, only one is raised.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from alignment.errors import DataError

LEAST, MOST = 1.0, 4.0 / 3.0
HIGHEST = 1e6  # weight, as in a recipe
ROUNDING = 1e-9  # relative, of the ratio


@dataclass(frozen=True, slots=True)
class LabelWeights:
    """The weights, and what they are made from."""

    desirable: float  # expected number of good answers
    undesirable: float
    desirable_weight: float
    undesirable_weight: float

    @property
    def ratio(self) -> float:
        """λ_D n_D / (λ_U n_U); infinite without bad answers, or where their weight is 0."""
        bad = self.undesirable_weight * self.undesirable
        return self.desirable_weight * self.desirable / bad if bad else math.inf

    def warning(self) -> str | None:
        """Return what is wrong with weights outside of the range."""
        if LEAST * (1 - ROUNDING) <= self.ratio <= MOST * (1 + ROUNDING):
            return None
        return (
            f"desirable_weight {self.desirable_weight:g} and undesirable_weight {self.undesirable_weight:g} give "
            f"λ_D n_D / (λ_U n_U) = {self.ratio:.3g} for {self.desirable:.6g} good and {self.undesirable:.6g} bad "
            "answers, outside 1 to 4/3 (https://arxiv.org/abs/2402.01306); leave them out to have them computed"
        )

    def told(self) -> str:
        """Return the weights in one line."""
        return (
            f"{self.desirable:.6g} good and {self.undesirable:.6g} bad answers: desirable_weight "
            f"{self.desirable_weight:.4g}, undesirable_weight {self.undesirable_weight:.4g}, "
            f"λ_D n_D / (λ_U n_U) = {self.ratio:.3g}"
        )

    def facts(self) -> dict[str, float]:
        """Return what the manifest records."""
        return {
            "desirable": self.desirable,
            "undesirable": self.undesirable,
            "desirable_weight": self.desirable_weight,
            "undesirable_weight": self.undesirable_weight,
            "ratio": self.ratio,
        }


def label_weights(
    probabilities: Iterable[float], *, desirable_weight: float | None = None, undesirable_weight: float | None = None
) -> LabelWeights:
    """Return the given weights, and for those that are None what the balance of the labels asks for.

    Args:
        probabilities: of each answer, that it is good; neither all 0 nor all 1.

    Raises: DataError where a computed weight is above `HIGHEST` or below its inverse.
    """
    given = list(probabilities)
    good = math.fsum(given)
    bad = math.fsum(1.0 - probability for probability in given)
    rarer = min(good, bad)
    if None in (desirable_weight, undesirable_weight) and rarer * HIGHEST < len(given):
        raise DataError(
            f"the labels of {len(given):,} answers make {good:.6g} good and {bad:.6g} bad ones, too few "
            f"{'good' if rarer == good else 'bad'} ones to compute desirable_weight and undesirable_weight; add some, "
            "or set both weights."
        )
    if desirable_weight is None:
        least = LEAST * (undesirable_weight or 1.0) * bad / good
        most = math.inf if undesirable_weight is None else least * MOST / LEAST  # of two nulls one stays 1
        desirable_weight = min(max(1.0, least), most)
    if undesirable_weight is None:
        most = desirable_weight * good / bad / LEAST
        undesirable_weight = min(max(1.0, most * LEAST / MOST), most)
    return LabelWeights(good, bad, desirable_weight, undesirable_weight)
