"""Whether the log-probabilities of sampled tokens are those of one model or of another."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from alignment.ops.masking import require_same_shape

LEAST_TOKENS = 32  # below this the spread of the residuals is not known well enough
RESOLVED = 4.0  # standard errors


@dataclass(frozen=True, slots=True)
class Share:
    """How far log-probabilities have moved from one model towards another: 0 at the first, 1 at the second."""

    share: float
    error: float  # one standard error of `share`
    difference: float  # mean absolute difference to the second model, nats a token

    def above(self, limit: float) -> bool:
        """Whether the share is larger than `limit` beyond doubt."""
        return self.share - RESOLVED * self.error > limit

    def below(self, limit: float) -> bool:
        """Whether the share is smaller than `limit` beyond doubt."""
        return self.share + RESOLVED * self.error < limit


def mean_difference(first: Tensor, second: Tensor) -> float:
    """Mean absolute difference of two (tokens,) tensors in nats a token."""
    require_same_shape(first=first, second=second)
    return float((first.double() - second.double()).abs().mean())


def share_towards(engine: Tensor, policy: Tensor, other: Tensor) -> Share:
    """Least-squares share of `other - policy` in `engine - policy`.

    Rounding moves each token's log-probability by an independent amount, so the share is much more precise than one
    token's difference: its standard error is the residuals' standard deviation over the norm of `other - policy`. An
    engine with the weights of `other` gives 1, one with the policy's 0, and one that applies the policy's difference
    from `other` twice gives -1 to first order. Noise that `policy` and `other` share moves the share of a correct
    engine towards 1/2 at most, where `other - policy` is all noise.

    Args:
        engine, policy, other: log-probabilities of the same sampled tokens, (tokens,), nats.
    Returns: a share with an infinite error where fewer than 32 tokens are given or `other` equals `policy`.
    """
    require_same_shape(engine=engine, policy=policy, other=other)
    moved, towards = engine.double() - policy.double(), other.double() - policy.double()
    difference = mean_difference(engine, other)
    norm = float(towards.square().sum())
    if len(moved) < LEAST_TOKENS or norm == 0:
        return Share(0.0, math.inf, difference)
    share = float((moved * towards).sum() / norm)
    variance = float(torch.square(moved - share * towards).sum() / (len(moved) - 1))
    return Share(share, math.sqrt(variance / norm), difference)
