"""Losses of PPO per token, and their aggregation to one number."""

from dataclasses import dataclass

import torch
from torch import Tensor

from alignment.ops.choices import Aggregation
from alignment.ops.kl import MAX_LOG_RATIO
from alignment.ops.masking import masked_mean, masked_sum, require_same_shape


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """Per-token policy loss and its statistics for the log; every tensor (batch, time)."""

    loss: Tensor
    ratio: Tensor  # π(a|s) / π_old(a|s)
    clipped: Tensor  # bool: the clipped term was the larger loss
    dual_clipped: Tensor  # bool: the dual clip's bound was in force


def policy_loss(
    logp: Tensor,
    old_logp: Tensor,
    advantages: Tensor,
    *,
    cliprange: float,
    cliprange_high: float,
    dual_clip: float | None,
    log_ratio_clip: float = 20.0,
) -> PolicyLoss:
    """Clipped surrogate, eq. 7 of https://arxiv.org/abs/1707.06347, with two extensions.

    loss = max(-A·r, -A·clip(r, 1 - cliprange, 1 + cliprange_high)), r = exp(logp - old_logp), the exponent clamped at
    ±`log_ratio_clip`. The higher upper bound is DAPO's "clip-higher", eq. 10 of https://arxiv.org/abs/2503.14476.
    Where A < 0 the loss is also bounded by -A·dual_clip, eq. 5 of https://arxiv.org/abs/1912.09729.

    Args:
        logp, old_logp, advantages: (batch, time) float.
        dual_clip: above 1, or None for none.
        log_ratio_clip: nats; exp(20) = 4.9e8, beyond which a ratio has no information and float16 overflows.
    Raises: ShapeError if the three differ.
    """
    require_same_shape(logp=logp, old_logp=old_logp, advantages=advantages)
    ratio = (logp - old_logp).clamp(-log_ratio_clip, log_ratio_clip)
    return clipped_surrogate(ratio, advantages, cliprange=cliprange, cliprange_high=cliprange_high, dual_clip=dual_clip)


def clipped_surrogate(
    log_ratio: Tensor, advantages: Tensor, *, cliprange: float, cliprange_high: float, dual_clip: float | None
) -> PolicyLoss:
    """Compute `policy_loss` from the logarithm of the probability ratio, (batch, time)."""
    ratio = log_ratio.exp()
    plain = -advantages * ratio
    bounded = -advantages * ratio.clamp(1 - cliprange, 1 + cliprange_high)
    loss = torch.maximum(plain, bounded)
    dual_clipped = torch.zeros_like(loss, dtype=torch.bool)
    if dual_clip is not None:
        bound = -advantages * dual_clip
        dual_clipped = (advantages < 0) & (loss > bound)
        loss = torch.where(dual_clipped, bound, loss)
    return PolicyLoss(loss=loss, ratio=ratio, clipped=bounded > plain, dual_clipped=dual_clipped)


def importance_ratio(logp: Tensor, engine_logp: Tensor) -> Tensor:
    """Ratio of the trained model's probability of each sampled token to the engine's that sampled it.

    π_old / π_engine, exp(logp - engine_logp), the exponent clamped at ±20. Clipped at C it is the weight of truncated
    importance sampling, Ionides 2008 (https://doi.org/10.1198/106186008X320456): a bounded variance for a little bias.

    Args:
        logp, engine_logp: (batch, time), nats, both at the sampling temperature.
    Raises: ShapeError if the two differ.
    """
    require_same_shape(logp=logp, engine_logp=engine_logp)
    return (logp - engine_logp).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


@dataclass(frozen=True, slots=True)
class ValueLoss:
    """Per-token value loss; every tensor (batch, time)."""

    loss: Tensor
    clipped: Tensor  # bool: the clipped prediction's error was the larger


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, *, cliprange_value: float) -> ValueLoss:
    """Half the larger squared error of the prediction and of the prediction clipped near its old value.

    loss = max((V - R)², (clip(V, V_old ± cliprange_value) - R)²) / 2, as in OpenAI Baselines and TRL.

    Args:
        values: predictions now. old_values: at rollout. returns: targets. All (batch, time) float.
    Raises: ShapeError if the three differ.
    """
    require_same_shape(values=values, old_values=old_values, returns=returns)
    near = torch.clamp(values, old_values - cliprange_value, old_values + cliprange_value)
    plain = (values - returns) ** 2
    bounded = (near - returns) ** 2
    return ValueLoss(loss=0.5 * torch.maximum(plain, bounded), clipped=bounded > plain)


def aggregate(loss: Tensor, mask: Tensor, how: Aggregation) -> Tensor:
    """Aggregate per-token losses to one number.

    `token-mean`: mean over all valid tokens (DAPO). `seq-mean-token-sum`: sum within an answer, mean over answers (the
    policy gradient as derived). `seq-mean-token-mean`: mean within an answer, mean over answers (original PPO for
    language models; short answers' tokens weigh more).

    Args:
        loss: (batch, time). mask: (batch, time) bool.
    Raises: ShapeError, ValueError for an unknown aggregation.
    """
    if how == "token-mean":
        return masked_mean(loss, mask)
    if how == "seq-mean-token-sum":
        return masked_sum(loss, mask, dim=1).mean()
    if how == "seq-mean-token-mean":
        return masked_mean(loss, mask, dim=1).mean()
    raise ValueError(f"aggregation {how!r} is unknown; use token-mean, seq-mean-token-sum or seq-mean-token-mean")


def aggregate_part(
    loss: Tensor, mask: Tensor, how: Aggregation, *, tokens: Tensor | float, sequences: Tensor | float
) -> Tensor:
    """A microbatch's share of the global batch's `aggregate`: the shares of any split sum to the whole.

    Args:
        loss: (batch, time), the microbatch. mask: bool.
        tokens, sequences: how many the whole batch holds, scalars.
    """
    if how == "token-mean":
        return masked_sum(loss, mask) / tokens
    if how == "seq-mean-token-sum":
        return masked_sum(loss, mask, dim=1).sum() / sequences
    if how == "seq-mean-token-mean":
        return masked_mean(loss, mask, dim=1).sum() / sequences
    raise ValueError(f"aggregation {how!r} is unknown; use token-mean, seq-mean-token-sum or seq-mean-token-mean")
