"""The loss on one microbatch: its terms per token, and its share of the minibatch's mean."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from alignment.config.schema import PolicyGradientRecipe
from alignment.ops.kl import kl_estimate
from alignment.ops.losses import PolicyLoss, ValueLoss, aggregate_part, policy_loss, value_loss


@dataclass(frozen=True, slots=True)
class Losses:
    """The terms of the loss per token; every tensor (batch, time)."""

    policy: PolicyLoss
    value: ValueLoss | None  # None without a value
    kl: Tensor | None  # to the reference; None if it is part of the reward


def token_losses(
    logp: Tensor, values: Tensor | None, batch: Mapping[str, Tensor], recipe: PolicyGradientRecipe
) -> Losses:
    """Compute the terms of the loss for the current policy and value.

    Args:
        logp: (batch, time), with gradient. values: likewise; None without a value.
        batch: tensors of `Experience`, (batch, time): `logp`, `advantages`; `values`, `returns` with a value;
            `ref_logp` if the KL is part of the loss; `weights` if a separate engine sampled.
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
    value = None
    if values is not None:
        value = value_loss(values, batch["values"], batch["returns"], cliprange_value=recipe.cliprange_value)
    in_loss = recipe.kl_placement == "loss"
    return Losses(policy, value, kl_estimate(logp, batch["ref_logp"], recipe.kl_estimator) if in_loss else None)


def minibatch_share(
    losses: Losses,
    loss_mask: Tensor,
    recipe: PolicyGradientRecipe,
    *,
    kl_coef: float,
    tokens: Tensor,
    sequences: Tensor,
    policy_trains: bool = True,
) -> Tensor:
    """mean(policy) + kl_coef * mean(kl) + vf_coef * mean(value), each mean over the whole minibatch.

    Args:
        loss_mask: (batch, time) bool.
        tokens, sequences: counts of the whole minibatch, on all processes.
        policy_trains: False multiplies all terms but the value's by zero; they stay in the graph because DDP expects a
            gradient for every trained parameter.
    """

    def share(loss: Tensor) -> Tensor:
        return aggregate_part(loss, loss_mask, recipe.loss_aggregation, tokens=tokens, sequences=sequences)

    policy = share(losses.policy.loss)
    if losses.kl is not None:
        policy = policy + kl_coef * share(losses.kl)
    if losses.value is None:
        return policy
    return (policy if policy_trains else 0.0 * policy) + recipe.vf_coef * share(losses.value.loss)
