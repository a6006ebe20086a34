"""From one score per answer to one reward per token."""

import torch
from torch import Tensor

from alignment.errors import ShapeError
from alignment.ops.masking import require_same_shape


def last_valid(mask: Tensor) -> Tensor:
    """Index of each row's last True, (batch,) int64; it follows from the mask, never from a token's id.

    Raises: ShapeError if a row has none.
    """
    if not bool(mask.any(dim=1).all()):
        raise ShapeError("every answer needs at least one token; the mask has a row without any")
    positions = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, positions, -1).amax(dim=1)


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    """Reward of each token: minus the KL penalty everywhere, plus the answer's score at its last token.

    r_t = -β·kl_t + score·[t is the last token], eq. 2 of https://arxiv.org/abs/1909.08593 spread over tokens.

    Args:
        scores: (batch,). kl: (batch, time), nats. mask: (batch, time) bool.
    Returns: (batch, time), zero where masked.
    """
    require_same_shape(kl=kl, mask=mask)
    if scores.shape != mask.shape[:1]:
        raise ShapeError(f"scores {tuple(scores.shape)} must hold one number per row of mask {tuple(mask.shape)}")
    rewards = torch.where(mask, -kl_coef * kl, 0.0)
    rows = torch.arange(len(scores), device=scores.device)
    last = last_valid(mask)
    rewards[rows, last] = rewards[rows, last] + scores.to(rewards.dtype)
    return rewards


def explained_variance(residual_variance: Tensor, return_variance: Tensor) -> float:
    """Share of the returns' variance that the values explain: 1 - Var(R - V) / Var(R).

    1 is perfect, 0 as good as a constant, below 0 worse. Returns without variance give 0.
    """
    return float(1 - residual_variance / return_variance) if float(return_variance) > 0 else 0.0
