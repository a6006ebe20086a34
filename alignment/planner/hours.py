"""The time of a stage, from its number of operations.

A forward pass takes 2 operations per weight and token. Attention takes 4·width per layer and pair of positions; a
causal mask halves this. The backward pass takes twice the forward pass, or once if the weights are frozen, because
their gradients are not computed. Recomputing activations takes one more forward pass (Kaplan et al.,
https://arxiv.org/abs/2001.08361, section 2.1; Narayanan et al., https://arxiv.org/abs/2104.04473, appendix). A sampling
step reads every weight once, and memory bandwidth limits it (Pope et al., https://arxiv.org/abs/2211.05102, section 2).
"""

import math
from dataclasses import dataclass

from alignment.config.schema import PolicyGradientRecipe
from alignment.planner.calls import Calls, calls_of
from alignment.planner.memory import StagePlan
from alignment.planner.rows import outside_answers

READING = 0.6  # share of the memory's bandwidth that sampling reaches


@dataclass(frozen=True, slots=True)
class Time:
    """The work of a stage and its time."""

    rows: int | None  # of data, as far as known
    steps: int | None  # of the optimizer
    tokens: int | None  # that models read or write, all passes together
    flops: float | None
    hours: float | None
    judge: Calls | None = None  # the judge calls

    @classmethod
    def unknown(cls) -> "Time":
        """Return a time without numbers, for an unknown number of rows."""
        return cls(None, None, None, None, None)


def time_of(plan: StagePlan, rows: int | None) -> Time:
    """Compute a stage's time. `rows`: demonstrations, prompts or pairs in its data; None: unknown."""
    recipe = plan.recipe
    if isinstance(recipe, PolicyGradientRecipe):
        return _ppo(plan, recipe)
    limit = int(recipe.library.get("max_steps", -1))  # -1, the libraries' own: none
    if rows is None and (limit < 1 or not recipe.STAGE.trains):
        return Time.unknown()
    if not recipe.STAGE.trains:
        assert rows is not None
        policies = 1 + len(getattr(recipe, "candidates", ()))
        answers = (rows * getattr(recipe, "num_generations", 1) + outside_answers(recipe)) * policies
        tokens, hours = _sampling(plan, answers)
        flops = 2.0 * _weights(plan) * answers * plan.lengths.whole
        return Time(rows, None, tokens, flops, hours, calls_of(recipe, rows, plan.lengths))
    given = recipe.library
    batch = plan.microbatch * int(given.get("gradient_accumulation_steps", 1)) * plan.machine.gpus
    epochs = float(given.get("num_train_epochs", 3))
    if limit > 0:
        steps = limit
        seen = steps * batch
    else:
        assert rows is not None
        steps = math.ceil(epochs * -(-rows // batch))  # as transformers: an epoch's last is short
        seen = min(steps * batch, math.ceil(epochs * rows))
    tokens = seen * plan.sequences * plan.lengths.whole
    extra = 2.0 * recipe.passes_without_gradient
    flops = tokens * (_training(plan) + extra * _weights(plan))
    return Time(rows, steps, tokens, flops, _hours(plan, flops))


def _ppo(plan: StagePlan, recipe: PolicyGradientRecipe) -> Time:
    answers = recipe.total_episodes
    sampled, hours = _sampling(plan, answers)
    read = answers * plan.lengths.whole
    updates = answers // recipe.rollout_batch_size
    rule, value = recipe.update_rule(), recipe.value is not None
    per_update = rule.num_epochs * recipe.num_mini_batches
    roles = 1 + value + rule.needs_reference + rule.needs_old_logp(steps=per_update, has_value=value)  # reward first
    trunks = 2 if recipe.value is not None and recipe.value.value_model != "head" else 1
    flops = read * _weights(plan) * 2.0 * roles
    flops += rule.num_epochs * read * _training(plan) * trunks
    steps = updates * per_update
    tokens, judge = sampled + read * (roles + rule.num_epochs), calls_of(recipe, answers, plan.lengths)
    return Time(answers, steps, tokens, flops, hours + _hours(plan, flops), judge)


def _weights(plan: StagePlan) -> float:
    """Return the weights per token, with the operations of attention counted as weights.

    Queries with keys and probabilities with values take 4·width·length operations per token and layer, halved by the
    causal mask; 2 operations count as one weight.
    """
    return plan.parameters + float(plan.config.hidden_size * plan.config.num_hidden_layers * plan.lengths.whole)


def _training(plan: StagePlan) -> float:
    """Return the operations per token of a forward and backward pass."""
    whole = plan.trainable >= 0.5 * plan.parameters
    again = 2.0 if plan.checkpointing else 0.0
    return ((6.0 if whole else 4.0) + again) * _weights(plan)


def _hours(plan: StagePlan, flops: float) -> float:
    machine = plan.machine
    return flops / (machine.tflops * 1e12 * machine.utilization * machine.gpus) / 3600


def _sampling(plan: StagePlan, answers: int) -> tuple[int, float]:
    """Return the sampled tokens and the hours: batches of answers, each with one step per token of an answer."""
    rows = plan.sampled_together
    turns = -(-answers // (rows * plan.machine.gpus))
    read = plan.weight_bytes / (plan.machine.bandwidth * 1e12 * READING)
    computed = 2 * plan.parameters * rows / (plan.machine.tflops * 1e12 * plan.machine.utilization)
    return answers * plan.lengths.answer, turns * plan.lengths.answer * max(read, computed) / 3600
