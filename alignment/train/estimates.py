"""From what the roles say of a rollout to experience: rewards per token, advantages and returns."""

import torch
from torch import Tensor

from alignment.config.schema import PPORecipe
from alignment.ops.advantages import advantages_and_returns
from alignment.ops.kl import kl_estimate
from alignment.ops.losses import importance_ratio
from alignment.ops.masking import whiten
from alignment.ops.rewards import token_rewards
from alignment.train.experience import Experience
from alignment.train.rollouts import RoleNumbers, Rollout


def make_experience(
    rollout: Rollout, said: RoleNumbers, rewards: Tensor, recipe: PPORecipe, *, kl_coef: float
) -> Experience:
    """What the update learns from; the whole rollout, the same on every process.

    Args:
        rewards: one per answer, (answers,).
    """
    mask = rollout.mask
    in_reward = recipe.kl_placement == "reward"
    kl = kl_estimate(said.logp, said.ref_logp, recipe.kl_estimator)
    per_token = token_rewards(rewards, kl, mask, kl_coef=kl_coef if in_reward else 0.0)
    last_values = torch.where(rollout.stopped, 0.0, said.last_values) if recipe.bootstrap_truncated else None
    advantages, returns = advantages_and_returns(
        per_token,
        said.values,
        mask,
        gamma=recipe.gamma,
        lam=recipe.lam,
        lam_value=recipe.lam_value,
        last_values=last_values,
    )
    trains = mask & rollout.stopped.unsqueeze(-1) if recipe.mask_truncated_completions else mask
    if recipe.whiten_advantages:
        advantages = whiten(advantages, trains)
    engine_logp = rollout.engine_logp
    weights = None
    if engine_logp is not None and recipe.importance_sampling_cap is not None:
        weights = importance_ratio(said.logp, engine_logp).clamp(max=recipe.importance_sampling_cap)
    return Experience(
        rollout.prompt_ids,
        rollout.answer_ids,
        mask,
        said.logp,
        said.values,
        advantages,
        returns,
        trains=trains,
        weights=weights,
        ref_logp=None if in_reward else said.ref_logp,
    )
