"""From rewards and values to advantages and returns."""

import torch
from torch import Tensor

from alignment.ops.masking import require_same_shape


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float, last_values: Tensor | None = None
) -> Tensor:
    """Generalised advantage estimation, eq. 16 of https://arxiv.org/abs/1506.02438.

    A_t = δ_t + γλ A_{t+1} with δ_t = r_t + γ V_{t+1} - V_t. An answer ends at its last valid token: nothing follows,
    so V and A after it are zero, unless `last_values` says what V would have been. Positions outside the mask are
    passed over, so gaps and padding change nothing.

    Args:
        rewards, values: (batch, time) float, in reward units. mask: (batch, time) bool.
        last_values: (batch,), the value of the state after each answer's last token, zero where the answer is whole;
            partial-episode bootstrapping, https://arxiv.org/abs/1712.00378, eq. 6.
    Returns: advantages, (batch, time), zero where masked.
    Raises: ShapeError where the three differ.
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
    https://arxiv.org/abs/2504.05118: at `lam_value` 1 the value's target is the plain sum of rewards to come, unbiased
    by the value itself, while a smaller `lam` keeps the policy's advantages quiet.

    Returns: advantages and returns, (batch, time), zero where masked.
    """
    advantages = gae(rewards, values, mask, gamma=gamma, lam=lam, last_values=last_values)
    for_value = advantages
    if lam_value != lam:
        for_value = gae(rewards, values, mask, gamma=gamma, lam=lam_value, last_values=last_values)
    return advantages, torch.where(mask, for_value + values, 0.0)
