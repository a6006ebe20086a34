"""`alignment doctor`: checks the machine, and recipes or pipelines on it."""

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from alignment.config.documents import read_document
from alignment.config.loading import check_recipe
from alignment.config.pipelines import is_pipeline, load_pipeline
from alignment.config.schema import Recipe
from alignment.config.secrets import refuse_keys_in_words
from alignment.doctor.environment import environment
from alignment.doctor.findings import Finding
from alignment.doctor.recipe import examine
from alignment.doctor.rows import SAMPLE, TryScorers
from alignment.errors import RecipeError
from alignment.planner.machine import Machine
from alignment.run.files import write_json
from alignment.train.trial import require_accepted

MARKS = {
    "ok": "[green]ok[/]     ",
    "note": "[blue]note[/]   ",
    "warning": "[yellow]warning[/]",
    "fault": "[red]fault[/]  ",
}


def doctor(
    paths: list[str],
    machine: Machine,
    *,
    overrides: list[str] | None = None,
    json_out: Path | None,
    console: Console,
    sample: int = SAMPLE,
    try_scorers: TryScorers | None = None,
) -> bool:
    """Check the machine and each file, with `sample` rows of data; print and write the findings.

    Args:
        overrides: `--key value` for the recipe, if `paths` is a single recipe.
        try_scorers: as `examine`.
    Returns: whether there is no fault.
    Raises: RecipeError if keys are given with a pipeline, with several recipes or without a recipe.
    """
    overrides = overrides or []
    refuse_keys_in_words(overrides)
    if overrides and (len(paths) != 1 or is_pipeline(read_document(paths[0]))):
        raise RecipeError([f"{overrides[0]}: keys change one recipe; name one recipe of a stage, before the keys"])
    found: dict[str, list[Finding]] = {}
    found["machine"] = _told("machine", list(environment()), console)
    for path in paths:
        for name, recipe, has, before, made in _stages(path, overrides, machine):
            if isinstance(recipe, Finding):
                findings = [recipe]
            else:
                findings = list(examine(recipe, has, before, made, sample=sample, try_scorers=try_scorers))
            found[name] = _told(name, findings, console)
    counts = Counter(finding.level for findings in found.values() for finding in findings)
    console.print(f"faults: {counts['fault']}, warnings: {counts['warning']}")
    if json_out is not None:
        write_json(json_out, {name: [dataclasses.asdict(one) for one in many] for name, many in found.items()})
    return not counts["fault"]


def _stages(
    path: str, overrides: list[str], machine: Machine
) -> Iterator[tuple[str, Recipe | Finding, Machine, dict[str, Recipe], list[str]]]:
    """Yield a file's recipes by name, each with its devices, and the recipes and outputs of earlier stages.

    A faulty file is a finding.
    """
    try:
        if not is_pipeline(read_document(path)):
            recipe = check_recipe(path, overrides)
            require_accepted([recipe])
            yield path, recipe, machine, {}, []
            return
        stages = load_pipeline(path).stages
        require_accepted([stage.recipe for stage in stages if stage.recipe is not None])
    except RecipeError as error:
        yield path, Finding("fault", "recipe", "; ".join(error.faults), "correct these keys"), machine, {}, []
        return
    before: dict[str, Recipe] = {}
    made: list[str] = []
    for stage in stages:
        if stage.recipe is not None:
            has = machine.alone if stage.recipe.STAGE.one_process else machine  # a pipeline launches training alone
            yield f"{path}: {stage.name}", stage.recipe, has, dict(before), list(made)
            before[stage.recipe.output_dir] = stage.recipe
        made += stage.outputs


def _told(name: str, findings: list[Finding], console: Console) -> list[Finding]:
    console.print(f"[bold]{escape(name)}[/]")
    for one in findings:
        remedy = f"\n            → {escape(one.remedy)}" if one.remedy else ""
        console.print(f"  {MARKS[one.level]} {escape(one.about)}: {escape(one.found)}{remedy}", soft_wrap=True)
    return findings
