"""Aggregates the scores of several reward models."""

from typing import Literal

from torch import Tensor

Aggregate = Literal["mean", "min", "lcb"]


def aggregate_scores(scores: Tensor, how: Aggregate, *, uncertainty_penalty: float) -> Tensor:
    """Bring the scores of an ensemble to one an answer.

    `mean`; `min`, the worst case; or `lcb`, the lower confidence bound mean - uncertainty_penalty·std, with the
    standard deviation over the members, n in the denominator. Coste et al., section 3.3 of
    https://arxiv.org/abs/2310.02743, whose uncertainty-weighted form subtracts the variance; the standard deviation has
    the scores' own unit, so the penalty means the same for any scale of them.

    Args:
        scores: (members, answers).
    Returns: (answers,); for one member its scores.
    """
    if how == "min":
        return scores.amin(0)
    mean = scores.mean(0)
    return mean - uncertainty_penalty * scores.std(0, correction=0) if how == "lcb" else mean
