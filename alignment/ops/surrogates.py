"""Losses of GRPO and related methods per token: at which level the probability ratio is taken, and how it is bounded.

Every function takes and returns (batch, time) tensors. The clipped surrogate is `alignment.ops.losses`'s.
"""

import math

import torch
from torch import Tensor

from alignment.ops.choices import RatioLevel
from alignment.ops.losses import PolicyLoss
from alignment.ops.masking import masked_mean, masked_sum, require_same_shape

LEAST_LOG_WEIGHT = math.log(1e-8)  # bound of VESPO's log weight, as in TRL
LARGEST_LOG_WEIGHT = 20.0


def log_ratio(logp: Tensor, old_logp: Tensor, mask: Tensor, *, level: RatioLevel, limit: float) -> Tensor:
    """Logarithm of the probability ratio that a loss reads, at every token.

    `token`: logp - old_logp. `sequence`: its mean over the answer (GSPO, eq. 7 of https://arxiv.org/abs/2507.18071).
    `trajectory`: its sum over the answer (RLOO).

    Args:
        mask: bool, True on the tokens that are trained.
        limit: nats; the result is clamped at ±`limit`.
    Raises: ShapeError if the three differ.
    """
    require_same_shape(logp=logp, old_logp=old_logp, mask=mask)
    ratio = logp - old_logp
    if level != "token":
        of_answer = masked_mean(ratio, mask, dim=1) if level == "sequence" else masked_sum(ratio, mask, dim=1)
        ratio = of_answer.unsqueeze(-1).expand_as(ratio)
    return ratio.clamp(-limit, limit)


def cispo(ratio: Tensor, advantages: Tensor, logp: Tensor, *, epsilon_high: float) -> PolicyLoss:
    """CISPO: -min(r, ε_high).detach() · A · log π, eq. 4 of https://arxiv.org/abs/2506.13585.

    The weight is bounded and has no gradient, so every token keeps its own.

    Args:
        ratio: r, the probability ratio. epsilon_high: its upper bound itself, not a distance from 1; as in TRL.
    """
    clipped = (ratio > epsilon_high) & (advantages > 0)
    weight = ratio.clamp(max=epsilon_high).detach()
    return PolicyLoss(-weight * advantages * logp, ratio, clipped, torch.zeros_like(clipped))


def sapo(ratio: Tensor, advantages: Tensor, *, temperature_pos: float, temperature_neg: float) -> PolicyLoss:
    """SAPO: -A · σ(τ (r - 1)) · 4 / τ, a soft gate in place of the clip (https://arxiv.org/abs/2511.20347).

    Args:
        temperature_pos, temperature_neg: τ where A > 0, and elsewhere.
    """
    temperature = torch.where(advantages > 0, temperature_pos, temperature_neg).to(ratio.dtype)
    gate = torch.sigmoid(temperature * (ratio - 1)) * 4 / temperature
    nothing = torch.zeros_like(advantages, dtype=torch.bool)
    return PolicyLoss(-gate * advantages, ratio, nothing, nothing)


def vespo(
    token_log_ratio: Tensor,
    advantages: Tensor,
    logp: Tensor,
    mask: Tensor,
    *,
    engine_weights: Tensor | None = None,
    k_pos: float,
    lambda_pos: float,
    k_neg: float,
    lambda_neg: float,
) -> PolicyLoss:
    """VESPO: -φ(w).detach() · A · log π with φ(w) = e^λ w^k e^(-λw) and w the answer's ratio; as in TRL 1.16.

    Args:
        token_log_ratio: nats, of each token. mask: bool.
        engine_weights: importance weights of the tokens that a separate engine sampled; they multiply w.
        k_pos, lambda_pos: k and λ where A ≥ 0. k_neg, lambda_neg: elsewhere.
    """
    with torch.no_grad():
        log_weight = masked_sum(token_log_ratio.clamp(-LARGEST_LOG_WEIGHT, LARGEST_LOG_WEIGHT), mask, dim=1)
        if engine_weights is not None:
            of_engine = engine_weights.log().clamp(LEAST_LOG_WEIGHT, LARGEST_LOG_WEIGHT)
            log_weight = log_weight + masked_sum(of_engine, mask, dim=1)
        log_weight = log_weight.clamp(LEAST_LOG_WEIGHT, LARGEST_LOG_WEIGHT).unsqueeze(-1)
        k = torch.where(advantages >= 0, k_pos, k_neg).to(logp.dtype)
        rate = torch.where(advantages >= 0, lambda_pos, lambda_neg).to(logp.dtype).clamp(min=1e-4)
        weight = (rate + k * log_weight - rate * log_weight.exp()).exp().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    nothing = torch.zeros_like(mask)
    return PolicyLoss(-weight * advantages * logp, token_log_ratio.exp(), nothing, nothing)
