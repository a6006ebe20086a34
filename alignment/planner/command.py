"""`alignment plan`: memory and time of a recipe, or of every stage of a pipeline."""

import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from alignment.config.documents import read_document
from alignment.config.loading import check_recipe
from alignment.config.pipelines import is_pipeline, load_pipeline
from alignment.config.schema import Recipe
from alignment.config.schema.prepare import PrepareRecipe
from alignment.config.schema.synthesize import SynthesizeRecipe
from alignment.config.secrets import refuse_keys_in_words
from alignment.errors import AlignmentError, RecipeError
from alignment.planner.advice import Change, Solution, changes, refused, solutions, verdict
from alignment.planner.calls import Calls, calls_of_writer
from alignment.planner.hours import Time, time_of
from alignment.planner.machine import GIB, Machine
from alignment.planner.memory import StagePlan, plan_stage
from alignment.planner.prepared import DataPlan, plan_data
from alignment.planner.prepared import in_words as data_in_words
from alignment.planner.rows import rows_of
from alignment.run.files import write_json
from alignment.train.trial import require_accepted

BAR = 40  # columns
INKS = ("blue", "cyan", "green", "yellow", "magenta", "red", "bright_blue", "bright_green", "bright_magenta", "white")


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """The plan of one stage with its time and suggested changes."""

    plan: StagePlan
    time: Time
    changes: list[Change]
    solved: list[Solution] | None  # None: not computed

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` writes."""
        plan = self.plan
        return {
            "stage": plan.stage,
            "recipe": plan.recipe.source,
            "fits": plan.spare >= 0,
            "spare_bytes": plan.spare,
            "peak_phase": plan.peak.name,
            "peak_bytes": plan.peak.total,
            "phases": {phase.name: {"total": phase.total, **phase.parts} for phase in plan.phases},
            "host_bytes": plan.host,
            "disk_bytes": plan.disk,
            "microbatch": plan.microbatch,
            "prompt_tokens": plan.lengths.prompt,
            "answer_tokens": plan.lengths.answer,
            "parameters": plan.parameters,
            "trainable_parameters": plan.trainable,
            "assumption": plan.assumption,
            "time": dataclasses.asdict(self.time),
            "refused": [one.key for one in refused(plan.recipe, plan.machine)],
            "changes": [dataclasses.asdict(change) for change in self.changes],
            "solved": [one.to_json() for one in self.solved or []],
        }


def plan_file(
    path: str,
    machine: Machine,
    *,
    overrides: list[str],
    rows: int | None,
    solve: bool,
    json_out: Path | None,
    console: Console,
) -> bool:
    """Plan a recipe or a pipeline, print and write it.

    Returns: whether all stages fit.
    Raises: RecipeError, ModelError; nothing is written then.
    """
    recipes = _recipes(path, overrides)
    require_accepted(recipes, here=False)
    found: list[Found] = []
    called: dict[str, Calls] = {}
    prepared: dict[str, DataPlan] = {}
    for place, recipe in enumerate(recipes):
        before = {other.output_dir: other for other in recipes[:place]}
        try:
            if isinstance(recipe, SynthesizeRecipe):
                called[recipe.source] = calls_of_writer(recipe)
                console.print(f"[bold]{recipe.stage}[/]: writer: {_bought(called[recipe.source])}", soft_wrap=True)
                continue
            if isinstance(recipe, PrepareRecipe):
                prepared[recipe.source] = data = plan_data(recipe, rows, before)
                console.print(f"[bold]{recipe.stage}[/]: {data_in_words(data)}", soft_wrap=True)
                if data.calls is not None:
                    console.print(f"  judge: {_bought(data.calls)}", soft_wrap=True)
                continue
            found.append(_plan(recipe, machine, before, rows, solve))
        except AlignmentError as error:
            if len(recipes) == 1:
                raise
            console.print(f"[bold]{recipe.stage}[/]: not planned: {escape(str(error))}", soft_wrap=True)
    for one in found:
        show(one, console)
    if len(found) > 1:
        _sum(found, console)
    if json_out is not None:
        stages = [one.to_json() for one in found]
        calls = {source: dataclasses.asdict(each) for source, each in called.items()}
        everything = {"machine": dataclasses.asdict(machine), "stages": stages, "all": total(found)}
        data_plans = {source: dataclasses.asdict(each) for source, each in prepared.items()}
        more = {"writers": calls, "prepared": data_plans}
        write_json(json_out, {**everything, **{name: each for name, each in more.items() if each}})
        console.print(f"Numbers: {json_out}", soft_wrap=True, markup=False)
    return all(one.plan.spare >= 0 for one in found)


def _recipes(path: str, overrides: list[str]) -> list[Recipe]:
    refuse_keys_in_words(overrides)
    if not is_pipeline(read_document(path)):
        return [check_recipe(path, overrides)]
    if overrides:
        raise RecipeError([f"{overrides[0]}: keys are changed in the recipes of a pipeline; plan one of them alone"])
    return [stage.recipe for stage in load_pipeline(path).stages if stage.recipe is not None]


def _plan(recipe: Recipe, machine: Machine, before: dict[str, Recipe], rows: int | None, solve: bool) -> Found:
    plan = plan_stage(recipe, machine, before)
    counted = rows if rows is not None else rows_of(recipe, before)
    tried = changes(plan, before) if plan.spare < 0 else []
    return Found(plan, time_of(plan, counted), tried, solutions(plan, before) if solve else None)


def show(found: Found, console: Console) -> None:
    """Print one stage: a table of bytes by phase, a bar of the peak, the verdict."""
    plan = found.plan
    console.print()
    console.print(f"[bold]{plan.stage}[/], GiB on each device")
    table = Table()
    table.add_column("")
    for phase in plan.phases:
        table.add_column(phase.name, justify="right")
    names = list(dict.fromkeys(name for phase in plan.phases for name in phase.parts))
    for name in names:
        table.add_row(name, *(_gib(phase.parts.get(name, 0)) for phase in plan.phases))
    table.add_section()
    table.add_row("together", *(f"[bold]{_gib(phase.total)}[/]" for phase in plan.phases))
    console.print(table)
    console.print(_bar(plan), soft_wrap=True)
    good = plan.spare >= 0
    console.print(f"[{'green' if good else 'red'}]{verdict(plan)}[/]", soft_wrap=True)
    for broken in refused(plan.recipe, plan.machine):
        told = f"{broken.what.replace('`', '')} is refused: {broken.reason}; {broken.remedy}"
        console.print(f"  {told}", soft_wrap=True, markup=False)
    for place, sizes in (("the host", plan.host), ("the disk", plan.disk)):
        for name, size in sizes.items():
            console.print(f"On {place}, all processes together: {name} {size / GIB:.1f} GiB", soft_wrap=True)
    if plan.spare < 0:
        console.print("  Change, in this order:" if found.changes else "  No recipe key makes it smaller.")
    for change in found.changes:
        end = ", fits" if change.fits else ""
        console.print(f"    {change.what}  # {change.peak / GIB:.1f} GiB{end}; costs: {change.costs}", soft_wrap=True)
    if found.changes and not found.changes[-1].fits:
        console.print("    it still does not fit: use more devices, larger devices or a smaller model", soft_wrap=True)
    for one in found.solved or []:
        console.print(f"  fits with {one.what}  # {one.plan.peak.total / GIB:.1f} GiB", soft_wrap=True)
    if found.solved == []:
        console.print("  no strategy and no microbatch alone makes it fit", soft_wrap=True)
    console.print(f"  assumed: {plan.assumption}", soft_wrap=True)
    console.print(f"  {_time(found)}", soft_wrap=True)


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}" if size else "–"


def _bar(plan: StagePlan) -> str:
    """Return a bar of the peak; the length of each part is its share of the device's memory."""
    parts = sorted(plan.peak.parts.items(), key=lambda part: -part[1])
    scale = BAR / max(plan.machine.memory, plan.peak.total)
    line, legend, used = "", [], 0
    for ink, (name, size) in zip(INKS * 2, parts, strict=False):
        blocks = round(size * scale)
        used += blocks
        line += f"[{ink}]{'█' * blocks}[/]"
        if blocks:
            legend.append(f"[{ink}]█[/] {name}")
    edge = round(plan.machine.memory * scale)
    line += "·" * max(0, edge - used)
    return f"{line}| {'  '.join(legend)}"


def _time(found: Found) -> str:
    time, machine = found.time, found.plan.machine
    if time.hours is None:
        return "time: unknown, because the data are not on this machine; give the number of rows with --rows"
    unit = "sequences" if found.plan.recipe.STAGE.splits else "rows"
    parts = [] if time.rows is None else [f"{time.rows} {unit}"]
    if time.steps is not None:
        parts.append(f"{time.steps} steps")
    parts.append(f"{time.tokens or 0:.3g} tokens")
    if time.flops is not None:
        parts.append(f"{time.flops:.2g} operations")
    at = f"{machine.tflops:g} TFLOP/s at {machine.utilization:.0%}"
    line = f"time: {', '.join(parts)}: {_hours(time.hours)} on {machine.gpus} device{'s' * (machine.gpus > 1)} of {at}"
    return line if time.judge is None else f"{line}\n  judge: {_bought(time.judge)}"


def _bought(calls: Calls) -> str:
    """Describe judge calls: number, tokens and cost."""
    cost = "no prices are given, so no cost" if calls.cost is None else f"at most {calls.cost:.2f} {calls.currency}"
    tokens = f"at most {calls.prompt_tokens:.3g} tokens of prompts and {calls.reply_tokens:.3g} of replies"
    return f"{calls.number} calls, {tokens}: {cost}"


def _hours(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{hours * 60:.1f} minutes"


def total(found: list[Found]) -> dict[str, Any]:
    """Return the sums over the stages whose data are known."""
    known = [one.time for one in found if one.time.hours is not None]
    asked = [time.judge for time in known if time.judge is not None]
    judge = sum(asked[1:], asked[0]) if asked else None
    return {
        "hours": sum(time.hours or 0.0 for time in known),
        "tokens": sum(time.tokens or 0 for time in known),
        "flops": sum(time.flops or 0.0 for time in known),
        "judge": dataclasses.asdict(judge) if judge else None,
        "not_counted": [one.plan.stage for one in found if one.time.hours is None],
    }


def _sum(found: list[Found], console: Console) -> None:
    console.print()
    worst, whole = max(found, key=lambda one: one.plan.peak.total).plan, total(found)
    line = f"all stages: peak {worst.peak.total / GIB:.1f} GiB in {worst.stage}; {whole['tokens']:.3g} tokens, "
    line += f"{whole['flops']:.2g} operations: {_hours(whole['hours'])}"
    if whole["not_counted"]:
        line += f", {', '.join(whole['not_counted'])} not counted"
    console.print(line, soft_wrap=True)
    if whole["judge"]:
        console.print(f"all judges: {_bought(Calls(**whole['judge']))}", soft_wrap=True)
