"""Advantage estimators without a value: they compare the answers to one prompt, or sum the rewards to come.

An answer's reward R is the sum of its tokens' rewards: the score, minus the KL penalty where that is a reward.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from alignment.ops.advantages import Estimate, EstimatorInput, estimator
from alignment.ops.choices import ScaleRewards

STD_EPSILON = 1e-4  # added to standard deviations, as in TRL


@estimator("grpo", uses_value=False, compares=True)
def grpo(batch: EstimatorInput, *, scale_rewards: ScaleRewards = "group", epsilon_std: float = STD_EPSILON) -> Estimate:
    """GRPO: A = (R - mean) / (std + ε) of the answers to the same prompt, section 4.1.2 of https://arxiv.org/abs/2402.03300.

    Args:
        scale_rewards: `group`: the group's standard deviation; `batch`: the rollout's (https://arxiv.org/abs/2508.08221);
            `none`: no division (Dr. GRPO, https://arxiv.org/abs/2503.20783). n - 1 in the denominator.
        epsilon_std: ε, in reward units.
    """
    rewards = _relative_rewards(batch)
    advantages = rewards - _of_groups(rewards, batch.groups, _mean)
    if scale_rewards == "group":
        advantages = advantages / (_of_groups(rewards, batch.groups, _std) + epsilon_std)
    elif scale_rewards == "batch":
        advantages = advantages / (_std(batch.rewards.sum(dim=1)) + epsilon_std)
    return _spread(advantages, batch.mask)


@estimator("dr_grpo", uses_value=False, compares=True)
def dr_grpo(batch: EstimatorInput) -> Estimate:
    """Dr. GRPO: A = R - mean of the answers to the same prompt, https://arxiv.org/abs/2503.20783."""
    return grpo(batch, scale_rewards="none")


@estimator("rloo", uses_value=False, compares=True)
def rloo(batch: EstimatorInput, *, normalize_advantages: bool = False, epsilon_std: float = STD_EPSILON) -> Estimate:
    """RLOO: A = R - mean of the *other* answers to the same prompt, https://arxiv.org/abs/2402.14740.

    Args:
        normalize_advantages: shift and scale the advantages of the rollout's answers to mean 0, standard deviation 1.
        epsilon_std: added to the standard deviation.
    """
    rewards = _relative_rewards(batch)
    size = _of_groups(torch.ones_like(rewards), batch.groups, torch.sum)
    others = (size * _of_groups(rewards, batch.groups, _mean) - rewards) / (size - 1).clamp(min=1)
    advantages = torch.where(size > 1, rewards - others, 0.0)
    if normalize_advantages:
        advantages = (advantages - advantages.mean()) / (_std(advantages) + epsilon_std)
    return _spread(advantages, batch.mask)


@estimator("reinforce_plus_plus", uses_value=False, keys=("gamma",), whitens=True)
def reinforce_plus_plus(batch: EstimatorInput, *, gamma: float = 1.0) -> Estimate:
    """REINFORCE++: A_t = Σ γ^(s-t) r_s over the tokens s from t on, https://arxiv.org/abs/2501.03262.

    The source whitens the result over all tokens of the rollout (`whiten_advantages`).
    """
    to_come = torch.zeros_like(batch.rewards)
    following = torch.zeros_like(batch.rewards[:, 0])
    for t in reversed(range(batch.rewards.shape[1])):
        following = torch.where(batch.mask[:, t], batch.rewards[:, t] + gamma * following, following)
        to_come[:, t] = torch.where(batch.mask[:, t], following, 0.0)
    return Estimate(to_come)


@estimator("reinforce_plus_plus_baseline", uses_value=False, compares=True, whitens=True)
def reinforce_plus_plus_baseline(batch: EstimatorInput) -> Estimate:
    """REINFORCE++ with baseline: A = R - mean of the answers to the same prompt, https://arxiv.org/abs/2501.03262.

    The source whitens the result over all tokens of the rollout (`whiten_advantages`).
    """
    return dr_grpo(batch)


def _relative_rewards(batch: EstimatorInput) -> Tensor:
    """Return each answer's reward less that of its group's first answer, (answers,).

    A mean of equal numbers may differ from them in the last bit. Of these, which are 0 in a group of equal rewards, it
    does not, and such a group has no advantages.
    """
    rewards = batch.rewards.sum(dim=1)
    return rewards - _of_groups(rewards, batch.groups, lambda of_group: of_group[0])


def _spread(advantages: Tensor, mask: Tensor) -> Estimate:
    """Give every token of an answer the answer's advantage."""
    return Estimate(torch.where(mask, advantages.unsqueeze(-1), 0.0))


def _of_groups(values: Tensor, groups: list[int], statistic: Callable[[Tensor], Tensor]) -> Tensor:
    """Return each answer's statistic of its group, (answers,)."""
    numbers = torch.tensor(groups, device=values.device)
    found = torch.empty_like(values)
    for number in dict.fromkeys(groups):
        found[numbers == number] = statistic(values[numbers == number])
    return found


def _mean(values: Tensor) -> Tensor:
    return values.mean()


def _std(values: Tensor) -> Tensor:
    """Return the standard deviation, n - 1 in the denominator; 0 for one value."""
    return values.std() if len(values) > 1 else torch.zeros_like(values).sum()
