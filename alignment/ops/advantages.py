"""Advantage estimators: from a rollout's rewards to advantages, and to the value's targets where there is a value."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from alignment.ops.masking import require_same_shape

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class EstimatorInput:
    """One rollout's rewards, the same on every process."""

    rewards: Tensor  # (answers, time), the answer's reward at its last token, minus the KL penalty where it is a reward
    mask: Tensor  # (answers, time) bool
    groups: list[int]  # (answers,), answers with the same number answer the same prompt
    values: Tensor | None = None  # (answers, time); None without a value
    last_values: Tensor | None = None  # (answers,), the value after the last token of answers that were truncated


@dataclass(frozen=True, slots=True)
class Estimate:
    """What an estimator returns, each (answers, time), zero where masked."""

    advantages: Tensor
    returns: Tensor | None = None  # targets of the value; None without a value


def estimator(
    name: str, *, uses_value: bool, keys: tuple[str, ...] = (), compares: bool = False, whitens: bool = False
) -> Callable[[Function], Function]:
    """Mark a function as the advantage estimator `name`; see `alignment.config.estimators`, which reads the arguments.

    Args:
        uses_value: a value model is loaded and trained. keys: of PPO's recipe, that it reads.
        compares: it compares the answers to one prompt. whitens: its source whitens the advantages of a rollout.
    """
    return lambda function: function


@estimator("gae", uses_value=True, keys=("gamma", "lam", "lam_value"), whitens=True)
def gae_estimator(batch: EstimatorInput, *, gamma: float, lam: float, lam_value: float) -> Estimate:
    """Generalised advantage estimation with two λ, see `advantages_and_returns`."""
    assert batch.values is not None
    advantages, returns = advantages_and_returns(
        batch.rewards,
        batch.values,
        batch.mask,
        gamma=gamma,
        lam=lam,
        lam_value=lam_value,
        last_values=batch.last_values,
    )
    return Estimate(advantages, returns)


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float, last_values: Tensor | None = None
) -> Tensor:
    """Generalised advantage estimation, eq. 16 of https://arxiv.org/abs/1506.02438.

    A_t = δ_t + γλ A_{t+1} with δ_t = r_t + γ V_{t+1} - V_t. An answer ends at its last valid token: V and A after it
    are zero, unless `last_values` gives V. Positions outside the mask are skipped, so gaps and padding change nothing.

    Args:
        rewards, values: (batch, time) float, in reward units. mask: (batch, time) bool.
        last_values: (batch,), the value of the state after each answer's last token, zero where the answer is whole;
            partial-episode bootstrapping, https://arxiv.org/abs/1712.00378, eq. 6.
    Returns: advantages, (batch, time), zero where masked.
    Raises: ShapeError if the three differ.
    """
    require_same_shape(rewards=rewards, values=values, mask=mask)
    advantages = torch.zeros_like(rewards)
    next_value = torch.zeros_like(rewards[:, 0]) if last_values is None else last_values
    next_advantage = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * lam * next_advantage
        next_value = torch.where(mask[:, t], values[:, t], next_value)
        next_advantage = torch.where(mask[:, t], advantage, next_advantage)
        advantages[:, t] = torch.where(mask[:, t], advantage, 0.0)
    return advantages


def advantages_and_returns(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    *,
    gamma: float,
    lam: float,
    lam_value: float,
    last_values: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Advantages for the policy at `lam`, targets for the value at `lam_value`.

    returns_t = A_t(lam_value) + V_t. Two λ ("decoupled GAE") are section 4.1 of VAPO,
    https://arxiv.org/abs/2504.05118: at `lam_value` 1 the value's target is the sum of the rewards to come, without the
    value's own bias, while a smaller `lam` reduces the variance of the policy's advantages.

    Returns: advantages and returns, (batch, time), zero where masked.
    """
    advantages = gae(rewards, values, mask, gamma=gamma, lam=lam, last_values=last_values)
    for_value = advantages
    if lam_value != lam:
        for_value = gae(rewards, values, mask, gamma=gamma, lam=lam_value, last_values=last_values)
    return advantages, torch.where(mask, for_value + values, 0.0)
