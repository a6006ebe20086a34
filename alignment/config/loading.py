"""Recipes from YAML files and the command line, with every fault found at once."""

import difflib
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, overload

import pydantic

from alignment.config import faults as wording
from alignment.config.documents import Document, Location, read_document
from alignment.config.library import Kind, trainer_keys
from alignment.config.overrides import apply, split_argv
from alignment.config.renamed import DECIDED, successor
from alignment.config.rules import broken_rules
from alignment.config.rules.keys import Keys
from alignment.config.rules.ranges import not_finite, out_of_range
from alignment.config.schema import STAGES, Recipe
from alignment.config.schema.parts import takes_text_alone
from alignment.errors import Done, RecipeError

MOST_FAULTS = 50  # of one message
AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)
INTERNAL = {"library", "source"}  # fields of `Recipe` that no file may give


@overload
def load_recipe(stage: type[AnyRecipe], argv: list[str]) -> AnyRecipe: ...
@overload
def load_recipe(stage: str, argv: list[str]) -> Recipe: ...


def load_recipe(stage: str | type[Recipe], argv: list[str]) -> Recipe:
    """Load the recipe of a stage.

    Args:
        stage: its name in `STAGES`, or its class. argv: `["--config", FILE, "--key", "value", ...]`, or
            `["--help"]`, or `["--help", WORD]` for the keys that contain the word.

    Raises: RecipeError with every fault, one per line.
    """
    cls = STAGES[stage] if isinstance(stage, str) else stage
    if "--help" in argv or "-h" in argv:
        from alignment.config.help import describe  # not above: `python -m alignment.config.reference` imports this

        at = next(place for place, word in enumerate(argv) if word in ("--help", "-h"))
        words = [word for word in argv[at + 1 :] if not word.startswith("-")]
        sys.stdout.write(describe(cls, words[0] if words else ""))
        raise Done
    path, overrides = split_argv(argv)
    return _load(cls, read_document(path), overrides)


def check_recipe(path: str, argv: Iterable[str] = ()) -> Recipe:
    """Load a recipe of the stage that it names. Reads only this file.

    Raises: RecipeError with every fault, one per line.
    """
    _, overrides = split_argv(["--config", path, *argv])
    document = read_document(path)
    stage = document.values.get("stage")
    if not isinstance(stage, str) or stage not in STAGES:
        known = ", ".join(STAGES)
        if "stage" not in document.values:
            raise RecipeError([document.fault((), f"the required key stage is missing; give one of {known}")])
        nearest = wording.did_you_mean(str(stage), STAGES)
        raise RecipeError([document.fault(("stage",), f"{stage!r} is not a stage; give one of {known}{nearest}")])
    return _load(STAGES[stage], document, overrides)


def own_keys(cls: type[Recipe]) -> dict[str, pydantic.fields.FieldInfo]:
    """Return the keys that the project itself defines for a stage."""
    return {name: info for name, info in cls.model_fields.items() if name not in INTERNAL}


def library_keys(cls: type[Recipe]) -> dict[str, Kind]:
    """Return the keys that are handed on to the stage's trainer configuration."""
    keys = trainer_keys(cls.TRAINER_CONFIG) if cls.TRAINER_CONFIG else {}
    return {name: kind for name, kind in keys.items() if name not in own_keys(cls)}


def _load(cls: type[Recipe], document: Document, overrides: list[tuple[str, str | None]]) -> Recipe:
    own, library = own_keys(cls), library_keys(cls)
    texts = {name for name, info in own.items() if takes_text_alone(info)}
    texts |= {name for name, kind in library.items() if "str" in kind.names and kind.names <= {"str", "none"}}
    flags = {name for name, info in own.items() if info.annotation is bool}
    flags |= {name for name, kind in library.items() if "bool" in kind.names}
    said = apply(document, overrides, texts, flags)

    values = document.values
    stage = values.get("stage")
    if isinstance(stage, str) and stage in STAGES and STAGES[stage] is not cls:
        raise RecipeError([document.fault(("stage",), f"is {stage}, but it is run as {_stage(cls)}")])
    found = list(not_finite(values))
    unknown = [key for key in values if key not in own and key not in library]
    found += [((key,), _unknown(key, cls, own, library)) for key in unknown[:MOST_FAULTS]]
    given = {key: value for key, value in values.items() if key in own}
    handed = {key: value for key, value in values.items() if key in library}
    found += _handed_faults(handed, library)
    recipe: Recipe | None = None
    try:
        recipe = cls.model_validate({**given, "library": handed, "source": document.path})
    except pydantic.ValidationError as error:
        known = {location for location, _ in found}
        found += [fault for fault in wording.from_pydantic(error, cls, values) if fault[0] not in known]
    wrong = {location[0] for location, _ in found if location}
    found += [((key,), f"cannot be set: {DECIDED[key]}") for key in handed if key in DECIDED]
    found += broken_rules(Keys(_stage(cls), cls, values, wrong))
    if found or said:
        found.sort(key=lambda fault: document.order(fault[0]))
        told = [document.fault(*fault) for fault in found[:MOST_FAULTS]]
        if len(found) > MOST_FAULTS:
            told.append(f"{document.path}: has {len(found) - MOST_FAULTS} more faults; correct these first")
        raise RecipeError(told + said)
    assert recipe is not None
    return recipe


def _handed_faults(handed: dict[str, Any], library: dict[str, Kind]) -> Iterator[tuple[Location, str]]:
    """Yield faults in the types and ranges of the trainer configuration's keys."""
    for key, value in handed.items():
        if not library[key].accepts(value):
            yield (key,), wording.wrong_kind(value, library[key])
        elif not library[key].choices:
            yield from out_of_range(key, value)


def _unknown(key: str, cls: type[Recipe], own: Iterable[str], library: Iterable[str]) -> str:
    known = [*own, *library]
    renamed = successor(key, known)
    if renamed:
        return renamed
    elsewhere = [name for name, other in STAGES.items() if key in own_keys(other)]
    if elsewhere and not difflib.get_close_matches(key, known, n=1, cutoff=0.85):
        return f"no key of stage {_stage(cls)}; it belongs to {' and '.join(elsewhere)}"
    return f"no such key{wording.did_you_mean(key, known)}"


def _stage(cls: type[Recipe]) -> str:
    return next((name for name, other in STAGES.items() if other is cls), cls.__name__)
