"""Pipelines: stages in order, each with its recipe checked and its paths settled."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pydantic

from alignment.config import faults as wording
from alignment.config.documents import Document, Location, parse_value, read_document
from alignment.config.loading import check_recipe
from alignment.config.rounds import Round, recipe_faults, repeated, rounds_of, shape_faults
from alignment.config.schema import (
    EvaluateRecipe,
    PipelineRecipe,
    PipelineStage,
    Recipe,
    RequireEntry,
    WinRateEntry,
)
from alignment.config.schema.require import PEOPLE, PERSON
from alignment.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a pipeline, ready to run."""

    name: str
    recipe: Recipe | None  # as resolved; None for a command
    arguments: tuple[str, ...]  # after `python -m`: the module and what it is given
    inputs: tuple[str, ...]  # a command's
    outputs: tuple[str, ...]  # a recipe's output_dir, a command's outputs
    index: int = 0  # its place in the file
    require: RequireEntry | None = None  # what its evaluation must have shown before the next stage runs


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A checked pipeline."""

    name: str
    output_dir: str
    accelerate_config: str | None
    stages: tuple[Stage, ...]

    def selected(self, path: str, start: str | None, only: str | None) -> tuple[Stage, ...]:
        """All stages, those from `start` on, or `only` one of them.

        Raises: RecipeError, naming the pipeline's file `path`.
        """
        names = [stage.name for stage in self.stages]
        faults = ["--from and --only exclude each other; give one"] if start and only else []
        for flag, name in (("--from", start), ("--only", only)):
            if name and name not in names:
                faults.append(f"{flag}: {path} has no stage {name}; it has {', '.join(names)}")
        if faults:
            raise RecipeError(faults)
        wanted = start or only
        first = names.index(wanted) if wanted else 0
        return self.stages[first : first + 1 if only else None]


def is_pipeline(document: Document) -> bool:
    """Whether a file is a pipeline, not a stage's recipe."""
    return "stages" in document.values and "stage" not in document.values


def check_file(path: str) -> list[Recipe]:
    """Check a recipe, or a pipeline with all its recipes.

    Returns: the recipes.
    Raises: RecipeError with every fault, one per line.
    """
    if not is_pipeline(read_document(path)):
        return [check_recipe(path)]
    return [stage.recipe for stage in load_pipeline(path).stages if stage.recipe is not None]


def load_pipeline(path: str, output_dir: str | None = None, seed: int | None = None) -> Pipeline:
    """Load a pipeline and every recipe it names.

    Args:
        path: the YAML file. output_dir: where everything goes instead of the pipeline's own `output_dir`.
        seed: of every recipe, and of every command that is given a `--seed`.

    Raises: RecipeError with every fault of every file, one per line.
    """
    document = read_document(path)
    try:
        given = PipelineRecipe.model_validate(document.values)
    except pydantic.ValidationError as error:
        found = wording.from_pydantic(error, PipelineRecipe, document.values)
        raise RecipeError([document.fault(*fault) for fault in found]) from None
    faults = [document.fault(*fault) for fault in (*_broken(given), *shape_faults(given))]
    loader = _Loader(document, os.path.dirname(path), seed, faults)
    move = _Move(({given.output_dir: output_dir or given.output_dir},))
    stages = [loader.stage(index, entry, move) for index, entry in enumerate(given.stages)]
    if not faults:
        faults += [document.fault(*fault) for fault in recipe_faults(given, [stage.recipe for stage in stages])]
    if not faults:
        faults += [document.fault(*fault) for fault in _requirements(given, stages)]
    if not faults and given.rounds is not None:
        stages = _in_rounds(given, stages, loader, move)
    faults += [document.fault(*fault) for fault in _same_output(stages)]
    if faults:
        raise RecipeError(list(dict.fromkeys(faults)))
    return Pipeline(given.name, output_dir or given.output_dir, given.accelerate_config, tuple(stages))


@dataclass(frozen=True, slots=True)
class _Loader:
    """Settles one stage after another and collects what is wrong with them."""

    document: Document
    folder: str  # of the pipeline's file
    seed: int | None
    faults: list[str]

    def stage(
        self, index: int, entry: PipelineStage, move: "_Move", of: tuple[Round, Recipe | None] | None = None
    ) -> Stage:
        """Return a stage with its paths moved.

        Args:
            of: the round that repeats it, and its recipe as it is without rounds.
        """
        name = of[0].name(entry.name) if of else entry.name
        if entry.command:
            arguments = tuple(_seeded(list(map(move.argument, entry.command)), self.seed))
            inputs, outputs = (tuple(map(move.text, paths)) for paths in (entry.inputs, entry.outputs))
            return Stage(name, None, arguments, inputs, outputs, index)
        if entry.recipe:
            try:
                overrides = entry.overrides | ({} if self.seed is None else {"seed": self.seed})
                settled = of[0].overrides(of[1]) if of and of[1] else {}
                recipe = os.path.join(self.folder, entry.recipe)
                stage = _recipe_stage(name, recipe, overrides, move, settled, index)
                return replace(stage, require=entry.require)
            except RecipeError as error:
                place = self.document.fault(("stages", index), "").removesuffix(": ")
                told = [f"{place}: {fault}" if fault.startswith("--") else fault for fault in error.faults]
                self.faults.extend(told)
        return Stage(name, None, (), (), (), index)


def _in_rounds(given: PipelineRecipe, stages: list[Stage], loader: _Loader, move: "_Move") -> list[Stage]:
    """Replace the repeated stages by the rounds; later stages read the output of the last round."""
    block = repeated(given)
    rounds = rounds_of(given, [stage.recipe for stage in stages], [stage.outputs for stage in stages])
    found = stages[: block[0]]
    for each in rounds:
        moved = _Move((*move.steps, each.places))
        found += [loader.stage(i, given.stages[i], moved, (each, stages[i].recipe)) for i in block]
    last = _Move((*move.steps, rounds[-1].places))
    return found + [loader.stage(i, given.stages[i], last) for i in range(block[-1] + 1, len(stages))]


def _broken(given: PipelineRecipe) -> Iterator[tuple[Location, str]]:
    names: dict[str, int] = {}
    for index, stage in enumerate(given.stages):
        at: Location = ("stages", index)
        if stage.name in names:
            yield (*at, "name"), f"{stage.name} is also the name of stages[{names[stage.name]}]; give each its own"
        names.setdefault(stage.name, index)
        if (stage.recipe is None) == (stage.command is None):
            yield at, "needs either recipe or command"
        for key in ("overrides",) if stage.command else ("inputs", "outputs"):
            if getattr(stage, key):
                yield (*at, key), f"belongs to {'recipe' if stage.command else 'command'} stages alone"
        if stage.require is not None:
            if stage.command:
                yield (*at, "require"), "belongs to the stage of an evaluation, which has a recipe"
            if stage.require.win_rate.low is None and stage.require.win_rate.value is None:
                yield (*at, "require", "win_rate"), "needs a limit: low, of the interval's lower end, or value"
        if stage.command and not stage.outputs:
            yield at, "a command needs outputs, which show whether it has finished"
    if given.accelerate_config and not Path(given.accelerate_config).is_file():
        yield ("accelerate_config",), f"no such file: {given.accelerate_config}"


def _requirements(given: PipelineRecipe, stages: list[Stage]) -> Iterator[tuple[Location, str]]:
    """Yield the requirements that the evaluation of their stage cannot show."""
    for index, (entry, stage) in enumerate(zip(given.stages, stages, strict=True)):
        if entry.require is None or stage.recipe is None:
            continue
        at: Location = ("stages", index, "require")
        if not isinstance(stage.recipe, EvaluateRecipe):
            yield at, f"belongs to the stage of an evaluation; {stage.name} is of the stage {stage.recipe.stage}"
            continue
        models = [stage.recipe.baseline_name, *(candidate.name for candidate in stage.recipe.candidates)]
        wanted = entry.require.win_rate
        for key, name in (("against", wanted.against), *(("of", name) for name in wanted.of or ())):
            if name not in models:
                yield (*at, "win_rate", key), f"{name} is not evaluated; {stage.name} has {', '.join(models)}"
        if wanted.against in (wanted.of or ()):
            yield (*at, "win_rate", "of"), f"{wanted.against} is also `against`; a model has no win rate against itself"
        if wanted.by != PEOPLE and not wanted.by.startswith(PERSON):
            yield from (((*at, "win_rate", key), why) for key, why in _unjudged(wanted, stage.recipe))


def _unjudged(wanted: WinRateEntry, recipe: EvaluateRecipe) -> Iterator[tuple[str, str]]:
    """Yield the keys of a requirement that the evaluation's judges never show."""
    judges = [judge.label for judge in recipe.judges]
    if wanted.by not in judges:
        known = ", ".join([*judges, PEOPLE, f"{PERSON}NAME"])
        yield "by", f"{wanted.by} is no judge of this evaluation; it may be {known}"
    baseline = recipe.baseline_name
    if wanted.against != baseline and wanted.of != [baseline]:
        why = f"judges compare with the baseline {baseline} alone; set it to {baseline}, or by to {PEOPLE}"
        yield "against", why


def _same_output(stages: list[Stage]) -> Iterator[tuple[Location, str]]:
    """Two stages that write one folder would wipe each other out."""
    writers: dict[str, str] = {}
    for stage in stages:
        for output in map(os.path.normpath, stage.outputs):
            if output in writers and writers[output] != stage.name:
                yield ("stages", stage.index), f"writes {output}, as stage {writers[output]} does; give each its own"
            writers.setdefault(output, stage.name)


@dataclass(frozen=True, slots=True)
class _Move:
    """Moves paths from some folders to others, in several steps."""

    steps: tuple[Mapping[str, str], ...]

    def text(self, text: str) -> str:
        """Move a path, leaving any other text as it is."""
        for places in self.steps:
            under = [old for old in places if text == old or text.startswith(old.rstrip("/") + "/")]
            if under:
                old = max(under, key=len)
                text = places[old].rstrip("/") + text[len(old.rstrip("/")) :]
        return text

    def argument(self, argument: str) -> str:
        """Move the path in `PATH` or `--key=PATH`."""
        flag, equals, value = argument.partition("=")
        return flag + equals + self.text(value) if equals and flag.startswith("--") else self.text(argument)

    def value(self, value: Any) -> Any:
        """Move every path inside a value."""
        if isinstance(value, dict):
            return {key: self.value(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.value(inner) for inner in value]
        return self.text(value) if isinstance(value, str) else value


def _seeded(arguments: list[str], seed: int | None) -> list[str]:
    if seed is not None and "--seed" in arguments[:-1]:
        arguments[arguments.index("--seed") + 1] = str(seed)
    return arguments


def _recipe_stage(
    name: str, path: str, overrides: dict[str, Any], move: _Move, settled: dict[str, Any], index: int
) -> Stage:
    values = read_document(path).values
    moved = {key: move.value(value) for key, value in values.items()}
    changed: dict[str, Any] = {key: value for key, value in moved.items() if value != values[key]}
    changed |= {key: move.value(value) for key, value in overrides.items()}
    changed |= settled
    words = [word for key, value in changed.items() for word in (f"--{key}", as_word(value))]
    recipe = check_recipe(path, words)
    return Stage(name, recipe, (f"recipes.{recipe.stage}", "--config", path, *words), (), (recipe.output_dir,), index)


def as_word(value: Any) -> str:
    """Write a value so that the command line reads the same value back."""
    if isinstance(value, str):
        try:
            if parse_value(value) == value and not value.startswith("--"):
                return value
        except RecipeError:
            pass
    return json.dumps(value, ensure_ascii=False)
