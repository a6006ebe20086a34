"""How long a stage takes, from the arithmetic it does.

A forward pass costs 2 operations a weight and token, and attention 4·width a layer and pair of positions, of which a
causal mask spares half; the backward pass twice the forward's, but with frozen weights once, as no gradient of theirs
is computed; recomputing activations once more (Kaplan et al., https://arxiv.org/abs/2001.08361, section 2.1; Narayanan
et al., https://arxiv.org/abs/2104.04473, appendix). A sampling step reads every weight once, and the device's memory is
what it waits for (Pope et al., https://arxiv.org/abs/2211.05102, section 2).
"""

import math
from dataclasses import dataclass

from alignment.config.schema import PolicyGradientRecipe
from alignment.planner.calls import Calls, calls_of
from alignment.planner.memory import StagePlan

READING = 0.6  # share of the memory's bandwidth that sampling reaches


@dataclass(frozen=True, slots=True)
class Time:
    """What a stage will do and for how long."""

    rows: int | None  # of data, as far as known
    steps: int | None  # of the optimizer
    tokens: int | None  # that models read or write, all passes together
    flops: float | None
    hours: float | None
    judge: Calls | None = None  # what is asked of judges

    @classmethod
    def unknown(cls) -> "Time":
        """Nothing can be said without the number of rows."""
        return cls(None, None, None, None, None)


def time_of(plan: StagePlan, rows: int | None) -> Time:
    """Work out a stage's time; `rows`: demonstrations, prompts or pairs in its data, None where unknown."""
    recipe = plan.recipe
    if isinstance(recipe, PolicyGradientRecipe):
        return _ppo(plan, recipe)
    if rows is None:
        return Time.unknown()
    if not recipe.STAGE.trains:
        policies = 1 + len(getattr(recipe, "candidates", ()))
        answers = rows * getattr(recipe, "num_generations", 1) * policies
        tokens, hours = _sampling(plan, answers)
        flops = 2.0 * _weights(plan) * answers * plan.lengths.whole
        return Time(rows, None, tokens, flops, hours, calls_of(recipe, rows, plan.lengths))
    given = recipe.library
    batch = plan.microbatch * int(given.get("gradient_accumulation_steps", 1)) * plan.machine.gpus
    epochs = float(given.get("num_train_epochs", 3))
    limit = int(given.get("max_steps", -1))  # -1, the libraries' own: none
    steps = limit if limit > 0 else math.ceil(epochs * -(-rows // batch))  # as transformers: an epoch's last is short
    seen = steps * batch if limit > 0 else min(steps * batch, math.ceil(epochs * rows))
    tokens = seen * plan.sequences * plan.lengths.whole
    extra = 2.0 if recipe.has_reference else 0.0  # the reference's pass
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
    """Weights that a token meets, attention's operations among them as if they were weights.

    Queries with keys and probabilities with values: 4·width·length operations a token and layer, of which the causal
    mask spares half; 2 operations are one weight.
    """
    return plan.parameters + float(plan.config.hidden_size * plan.config.num_hidden_layers * plan.lengths.whole)


def _training(plan: StagePlan) -> float:
    """Operations a token costs in a forward and backward pass."""
    whole = plan.trainable >= 0.5 * plan.parameters
    again = 2.0 if plan.checkpointing else 0.0
    return ((6.0 if whole else 4.0) + again) * _weights(plan)


def _hours(plan: StagePlan, flops: float) -> float:
    machine = plan.machine
    return flops / (machine.tflops * 1e12 * machine.utilization * machine.gpus) / 3600


def _sampling(plan: StagePlan, answers: int) -> tuple[int, float]:
    """Tokens written, and hours: turns of so many rows at once, each as many steps as an answer is long."""
    rows = plan.sampled_together
    turns = -(-answers // (rows * plan.machine.gpus))
    read = plan.weight_bytes / (plan.machine.bandwidth * 1e12 * READING)
    computed = 2 * plan.parameters * rows / (plan.machine.tflops * 1e12 * plan.machine.utilization)
    return answers * plan.lengths.answer, turns * plan.lengths.answer * max(read, computed) / 3600
