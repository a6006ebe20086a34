"""Whether a plan fits, and if not, what to change, the least harmful change first."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from alignment.config.rules.combinations import (
    ONE_PROCESS,
    Combination,
    broken_by_itself,
    broken_under,
    values_of,
)
from alignment.config.schema import AdapterKeys, PolicyGradientRecipe, Recipe
from alignment.planner.machine import GIB, STRATEGIES, Machine
from alignment.planner.memory import StagePlan, plan_stage

OTHERS = ("single", "fsdp2", "zero3-nvme")  # one process; as zero3; no less on a device than zero3-offload
CHEAPEST_FIRST = [name for name in STRATEGIES if name not in OTHERS]  # by what they send between devices


@dataclass(frozen=True, slots=True)
class Change:
    """One change, in addition to the earlier ones, and the stage's peak memory with all of them."""

    what: str  # as recipe keys or an option, ready to be copied
    costs: str  # the disadvantage of the change
    peak: int  # bytes
    fits: bool


@dataclass(frozen=True, slots=True)
class Idea:
    """The planned recipe and machine with one difference."""

    what: str
    costs: str
    recipe: Recipe
    machine: Machine


def changes(plan: StagePlan, planned: Mapping[str, Recipe]) -> list[Change]:
    """Add changes until a stage fits, each time the least harmful one that reduces its peak.

    Returns: the changes to make together; empty if nothing helps. `fits` of the last one is whether they are enough.
    """
    found: list[Change] = []
    best = plan
    while best.spare < 0:
        step = _first_that_helps(best, planned)
        if step is None:
            break
        idea, best = step
        found.append(Change(idea.what, idea.costs, best.peak.total, best.spare >= 0))
    return found


def _first_that_helps(plan: StagePlan, planned: Mapping[str, Recipe]) -> tuple[Idea, StagePlan] | None:
    for idea in _ideas(plan):
        if refused(idea.recipe, idea.machine):
            continue
        other = plan_stage(idea.recipe, idea.machine, planned)
        if other.peak.total < plan.peak.total:
            return idea, other
    return None


def refused(recipe: Recipe, machine: Machine) -> list[Combination]:
    """Return what a stage refuses of what its recipe and strategy put together.

    Stages that run in one process do so in a pipeline too, whatever the others are planned for.
    """
    given = recipe.stage, values_of(recipe)
    found = [*broken_by_itself(*given), *broken_under(*given, machine.strategy, gpu=machine.gpu)]
    return [one for one in found if one.stages != ONE_PROCESS]


def _ideas(plan: StagePlan) -> Iterator[Idea]:
    """Yield single changes to a plan, the least harmful first."""
    recipe, machine = plan.recipe, plan.machine
    trains, adapter = plan.trainable > 0, not (isinstance(recipe, AdapterKeys) and recipe.method.trains_base)
    if machine.gpus > 1 and machine.strategy in CHEAPEST_FIRST[:-1]:
        for name in CHEAPEST_FIRST[CHEAPEST_FIRST.index(machine.strategy) + 1 : -1]:
            yield Idea(f"--strategy {name}", "more is sent between devices", recipe, machine.using(name))
    if plan.peak.name == "sampling":
        for key in ("rollout_eval_batch_size", "per_device_eval_batch_size"):
            if getattr(recipe, key, 1) > 1:
                yield _keys(plan, "sampling in more turns", **{key: getattr(recipe, key) // 2})
    if trains and not plan.checkpointing:
        yield _keys(plan, "about a third more time", gradient_checkpointing=True)
    if trains and plan.microbatch > 1:
        half = {"per_device_train_batch_size": plan.microbatch // 2}
        if not isinstance(recipe, PolicyGradientRecipe):  # it follows from PPO's own keys
            half["gradient_accumulation_steps"] = 2 * int(recipe.library.get("gradient_accumulation_steps", 1))
        yield _keys(plan, "the same gradient in more turns", **half)
    if adapter and getattr(recipe, "bits", 4) is None:
        yield _keys(plan, "weights rounded to 4 bits (QLoRA), and slower steps", load_in_4bit=True)
    if trains and not adapter:
        if "bit" not in str(recipe.library.get("optim", "")):
            yield _keys(plan, "optimizer states rounded to 8 bits", optim="adamw_bnb_8bit")
        yield _keys(plan, "an adapter in place of all weights", peft_method="lora")
    if machine.gpus > 1 and not machine.offloads:
        yield Idea("--strategy zero3-offload", "several times slower", recipe, machine.using("zero3-offload"))


def _keys(plan: StagePlan, costs: str, **new: object) -> Idea:
    recipe = plan.recipe
    ours = {key: value for key, value in new.items() if key in type(recipe).model_fields}
    rest = {key: value for key, value in new.items() if key not in ours}
    changed = recipe.model_copy(update={**ours, "library": {**recipe.library, **rest}})
    options = {key: str(value).lower() if isinstance(value, bool) else value for key, value in new.items()}
    return Idea(" ".join(f"--{key} {value}" for key, value in options.items()), costs, changed, plan.machine)


@dataclass(frozen=True, slots=True)
class Solution:
    """A strategy and a microbatch with which a stage fits; the rows of an optimizer step stay the same."""

    what: str  # as options and recipe keys, ready to be copied
    plan: StagePlan

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` writes."""
        plan = self.plan
        return {
            "what": self.what,
            "strategy": plan.machine.strategy,
            "microbatch": plan.microbatch,
            "peak_bytes": plan.peak.total,
        }


def solutions(plan: StagePlan, planned: Mapping[str, Recipe]) -> list[Solution]:
    """Find the largest microbatch that fits, for the cheapest strategy that fits and for the planned one."""
    found = [cheapest_strategy(plan, planned)]
    if found[0] is not None and found[0].plan.machine.strategy != plan.machine.strategy:
        found.append(largest_microbatch(plan, planned))
    return [one for one in found if one is not None]


def largest_microbatch(plan: StagePlan, planned: Mapping[str, Recipe], strategy: str = "") -> Solution | None:
    """Find the largest microbatch that fits without changing the rows of a step; None if not even the smallest fits.

    Args:
        strategy: in place of the plan's.
    """
    machine = plan.machine.using(strategy or plan.machine.strategy)
    ideas = [_keys(plan, "", **keys) for keys in _microbatches(plan)]

    @cache
    def tried(place: int) -> StagePlan:
        return plan_stage(ideas[place].recipe, machine, planned)

    fitting = bisect_left(range(len(ideas)), True, key=lambda place: tried(place).spare < 0)  # how many of them fit
    if not fitting:
        return None
    option = f"--strategy {machine.strategy} " if machine.gpus > 1 else ""
    return Solution(f"{option}{ideas[fitting - 1].what}", tried(fitting - 1))


def _microbatches(plan: StagePlan) -> list[dict[str, int]]:
    """Return all possible microbatches as recipe keys, smallest first; the rows of an optimizer step stay the same."""
    recipe = plan.recipe
    if not plan.trainable:
        return [{"per_device_eval_batch_size": 2**power} for power in range(11)]
    if isinstance(recipe, PolicyGradientRecipe):
        rows = recipe.rollout_batch_size // (recipe.num_mini_batches * plan.machine.gpus)
        return [{"per_device_train_batch_size": size} for size in _divisors(rows)]
    rows = plan.microbatch * int(recipe.library.get("gradient_accumulation_steps", 1))
    return [
        {"per_device_train_batch_size": size, "gradient_accumulation_steps": rows // size} for size in _divisors(rows)
    ]


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


def cheapest_strategy(plan: StagePlan, planned: Mapping[str, Recipe]) -> Solution | None:
    """Find the first strategy, ordered by communication, with which some microbatch fits; None if there is none."""
    names = CHEAPEST_FIRST if plan.machine.gpus > 1 else [plan.machine.strategy]
    names = [name for name in names if not refused(plan.recipe, plan.machine.using(name))]
    return next((one for name in names if (one := largest_microbatch(plan, planned, name)) is not None), None)


def verdict(plan: StagePlan) -> str:
    """Return one line that states whether a stage fits."""
    peak, memory, spare = (size / GIB for size in (plan.peak.total, plan.machine.memory, plan.spare))
    held = f"{peak:.1f} of {memory:.1f} GiB while {plan.peak.name}"
    if spare >= 0:
        return f"{plan.stage}: fits, {held}; {spare:.1f} GiB to spare"
    return f"{plan.stage}: does not fit, {held}; {-spare:.1f} GiB too much"
