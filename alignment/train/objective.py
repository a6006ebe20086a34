"""PPO's loss on one microbatch: its parts per token, and the share they have in the minibatch's mean."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from alignment.config.schema import PPORecipe
from alignment.ops.kl import kl_estimate
from alignment.ops.losses import PolicyLoss, ValueLoss, aggregate_part, policy_loss, value_loss


@dataclass(frozen=True, slots=True)
class Losses:
    """What one microbatch loses, per token; every tensor (batch, time)."""

    policy: PolicyLoss
    value: ValueLoss
    kl: Tensor | None  # to the reference; None where it is part of the reward


def token_losses(logp: Tensor, values: Tensor, batch: Mapping[str, Tensor], recipe: PPORecipe) -> Losses:
    """The losses of what policy and value say now.

    Args:
        logp, values: (batch, time), with gradient.
        batch: the experience, its tensors (batch, time); `ref_logp` where the KL is in the loss, `weights` where
            tokens were sampled by an engine that is not the model.
    """
    policy = policy_loss(
        logp,
        batch["logp"],
        batch["advantages"],
        cliprange=recipe.cliprange,
        cliprange_high=recipe.cliprange_high,
        dual_clip=recipe.dual_clip,
        log_ratio_clip=recipe.log_ratio_clip,
    )
    if "weights" in batch:
        policy = replace(policy, loss=policy.loss * batch["weights"])
    value = value_loss(values, batch["values"], batch["returns"], cliprange_value=recipe.cliprange_value)
    in_loss = recipe.kl_placement == "loss"
    return Losses(policy, value, kl_estimate(logp, batch["ref_logp"], recipe.kl_estimator) if in_loss else None)


def minibatch_share(
    losses: Losses,
    mask: Tensor,
    recipe: PPORecipe,
    *,
    kl_coef: float,
    tokens: Tensor,
    sequences: Tensor,
    policy_trains: bool = True,
) -> Tensor:
    """mean(policy) + kl_coef·mean(kl) + vf_coef·mean(value), each mean over the minibatch that this is a part of.

    Args:
        policy_trains: if not, all but the value's part weighs nothing; it stays in the graph, as DDP needs it.
        mask: (batch, time) bool.
        tokens, sequences: how many the whole minibatch holds, on all processes.
    """

    def share(loss: Tensor) -> Tensor:
        return aggregate_part(loss, mask, recipe.loss_aggregation, tokens=tokens, sequences=sequences)

    policy = share(losses.policy.loss)
    if losses.kl is not None:
        policy = policy + kl_coef * share(losses.kl)
    return (policy if policy_trains else 0.0 * policy) + recipe.vf_coef * share(losses.value.loss)
