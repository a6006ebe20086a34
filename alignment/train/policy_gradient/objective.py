"""The loss on one microbatch: its terms per token, and its share of the minibatch's mean."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from alignment.config.update_rule import UpdateRule
from alignment.ops.kl import kl_estimate
from alignment.ops.losses import PolicyLoss, ValueLoss, aggregate_part, clipped_surrogate, value_loss
from alignment.ops.surrogates import cispo, log_ratio, sapo, vespo


@dataclass(frozen=True, slots=True)
class Losses:
    """The terms of the loss per token; every tensor (batch, time)."""

    policy: PolicyLoss  # its ratio is that of each token
    value: ValueLoss | None  # None without a value
    kl: Tensor | None  # to the reference; None if it is no part of the loss


@dataclass(frozen=True, slots=True)
class Counts:
    """What the whole minibatch has on all processes, for means over it."""

    tokens: Tensor  # trained
    sequences: Tensor  # answers that count in means over answers
    rollout_tokens: Tensor  # trained tokens of the rollout, divided by its minibatches


def token_losses(
    logp: Tensor, values: Tensor | None, batch: Mapping[str, Tensor], rule: UpdateRule, *, cliprange_value: float = 0.0
) -> Losses:
    """Compute the terms of the loss for the current policy and value.

    Args:
        logp: (batch, time), with gradient. values: likewise; None without a value.
        batch: tensors of `Experience`, (batch, time): `loss_mask`, `advantages`; `logp`, absent if the policy itself
            sampled and has not moved since; `values`, `returns` with a value; `ref_logp` if the KL is part of the loss;
            `weights` if a separate engine sampled.
    """
    old_logp, mask, limit = batch.get("logp", logp.detach()), batch["loss_mask"], rule.log_ratio_clip
    of_tokens = log_ratio(logp, old_logp, mask, level="token", limit=limit)
    read = log_ratio(logp, old_logp, mask, level=rule.ratio_level, limit=limit)
    policy = replace(_policy_loss(of_tokens, read, logp, batch, rule), ratio=of_tokens.exp())
    if "weights" in batch and rule.surrogate != "vespo":  # VESPO's weight contains them
        policy = replace(policy, loss=policy.loss * batch["weights"])
    value = None
    if values is not None:
        value = value_loss(values, batch["values"], batch["returns"], cliprange_value=cliprange_value)
    kl = None
    if rule.kl_placement == "loss" and rule.needs_reference:
        kl = kl_estimate(logp, batch["ref_logp"], rule.kl_estimator, bound=rule.kl_bound)
        kl = kl * read.exp() if rule.kl_times_ratio else kl
    return Losses(policy, value, kl)


def _policy_loss(
    of_tokens: Tensor, read: Tensor, logp: Tensor, batch: Mapping[str, Tensor], rule: UpdateRule
) -> PolicyLoss:
    """Return the rule's surrogate; of_tokens, read: log ratio of each token, and of the rule's level."""
    advantages = batch["advantages"]
    if rule.surrogate == "vespo":
        weights = batch.get("weights")
        return vespo(of_tokens, advantages, logp, batch["loss_mask"], engine_weights=weights, **rule.surrogate_keys)
    if rule.surrogate == "cispo":
        return cispo(read.exp(), advantages, logp, epsilon_high=rule.cliprange_high)
    if rule.surrogate == "sapo":
        return sapo(read.exp(), advantages, **rule.surrogate_keys)
    return clipped_surrogate(
        read,
        advantages,
        cliprange=rule.cliprange,
        cliprange_high=rule.cliprange_high,
        dual_clip=rule.dual_clip,
    )


def minibatch_share(
    losses: Losses,
    loss_mask: Tensor,
    rule: UpdateRule,
    counts: Counts,
    *,
    kl_coef: float,
    vf_coef: float = 0.0,
    policy_trains: bool = True,
) -> Tensor:
    """mean(policy) + kl_coef * mean(kl) + vf_coef * mean(value), each mean over the whole minibatch.

    Args:
        loss_mask: (batch, time) bool.
        policy_trains: False multiplies all terms but the value's by zero; they stay in the graph because DDP expects a
            gradient for every trained parameter.
    """

    def share(loss: Tensor) -> Tensor:
        if rule.loss_aggregation == "rollout-token-mean":
            return aggregate_part(loss, loss_mask, "token-mean", tokens=counts.rollout_tokens, sequences=1.0)
        if rule.loss_aggregation == "max-length":
            tokens = counts.sequences * rule.max_length
            return aggregate_part(loss, loss_mask, "token-mean", tokens=tokens, sequences=1.0)
        return aggregate_part(loss, loss_mask, rule.loss_aggregation, tokens=counts.tokens, sequences=counts.sequences)

    policy = share(losses.policy.loss)
    if losses.kl is not None:
        policy = policy + kl_coef * share(losses.kl)
    if losses.value is None:
        return policy
    return (policy if policy_trains else 0.0 * policy) + vf_coef * share(losses.value.loss)
