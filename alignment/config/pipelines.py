"""Pipelines: stages in order, each with its recipe checked and its paths settled."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from alignment.config import faults as wording
from alignment.config.documents import Document, Location, parse_value, read_document
from alignment.config.loading import check_recipe
from alignment.config.schema import PipelineRecipe, Recipe
from alignment.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a pipeline, ready to run."""

    name: str
    recipe: Recipe | None  # as resolved; None for a command
    arguments: tuple[str, ...]  # after `python -m`: the module and what it is given
    inputs: tuple[str, ...]  # a command's
    outputs: tuple[str, ...]  # a recipe's output_dir, a command's outputs


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A checked pipeline."""

    name: str
    output_dir: str
    accelerate_config: str | None
    stages: tuple[Stage, ...]


def is_pipeline(document: Document) -> bool:
    """Tell a pipeline from a stage's recipe."""
    return "stages" in document.values and "stage" not in document.values


def check_file(path: str) -> None:
    """Check a recipe, or a pipeline with all its recipes.

    Raises: RecipeError with every fault, one per line.
    """
    if is_pipeline(read_document(path)):
        load_pipeline(path)
    else:
        check_recipe(path)


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
    faults = [document.fault(*fault) for fault in _broken(given)]
    move = _Move(given.output_dir, output_dir or given.output_dir)
    stages: list[Stage] = []
    for index, entry in enumerate(given.stages):
        if entry.command:
            outputs = tuple(map(move.text, entry.outputs))
            arguments = tuple(_seeded(list(map(move.argument, entry.command)), seed))
            stages.append(Stage(entry.name, None, arguments, tuple(map(move.text, entry.inputs)), outputs))
        elif entry.recipe:
            try:
                overrides = entry.overrides | ({} if seed is None else {"seed": seed})
                recipe = os.path.join(os.path.dirname(path), entry.recipe)
                stages.append(_recipe_stage(entry.name, recipe, overrides, move))
            except RecipeError as error:
                place = document.fault(("stages", index), "").removesuffix(": ")
                faults += [f"{place}: {fault}" if fault.startswith("--") else fault for fault in error.faults]
    faults += [document.fault(*fault) for fault in _same_output(given, stages)]
    if faults:
        raise RecipeError(list(dict.fromkeys(faults)))
    return Pipeline(given.name, move.new, given.accelerate_config, tuple(stages))


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
        if stage.command and not stage.outputs:
            yield at, "a command needs outputs, or nothing tells whether it is done"
    if given.accelerate_config and not Path(given.accelerate_config).is_file():
        yield ("accelerate_config",), f"no such file: {given.accelerate_config}"


def _same_output(given: PipelineRecipe, stages: list[Stage]) -> Iterator[tuple[Location, str]]:
    """Two stages that write one folder would wipe each other out."""
    writers: dict[str, str] = {}
    for stage in stages:
        for output in map(os.path.normpath, stage.outputs):
            if output in writers and writers[output] != stage.name:
                index = [entry.name for entry in given.stages].index(stage.name)
                yield ("stages", index), f"writes {output}, as stage {writers[output]} does; give each its own"
            writers.setdefault(output, stage.name)


@dataclass(frozen=True, slots=True)
class _Move:
    """Puts what lies under one folder under another."""

    old: str
    new: str

    def text(self, text: str) -> str:
        """Move a path, leaving any other text as it is."""
        if text == self.old or text.startswith(self.old.rstrip("/") + "/"):
            return self.new.rstrip("/") + text[len(self.old.rstrip("/")) :]
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


def _recipe_stage(name: str, path: str, overrides: dict[str, Any], move: _Move) -> Stage:
    values = read_document(path).values
    moved = {key: move.value(value) for key, value in values.items()}
    changed: dict[str, Any] = {key: value for key, value in moved.items() if value != values[key]}
    changed |= {key: move.value(value) for key, value in overrides.items()}
    words = [word for key, value in changed.items() for word in (f"--{key}", as_word(value))]
    recipe = check_recipe(path, words)
    return Stage(name, recipe, (f"recipes.{recipe.stage}", "--config", path, *words), (), (recipe.output_dir,))


def as_word(value: Any) -> str:
    """Write a value so that the command line reads the same value back."""
    if isinstance(value, str):
        try:
            if parse_value(value) == value and not value.startswith("--"):
                return value
        except RecipeError:
            pass
    return json.dumps(value, ensure_ascii=False)
