"""The files, folders and functions that a recipe reads, by what its keys are declared to be."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic.fields import FieldInfo

from alignment.config.data_files import named_files
from alignment.config.library import FILES
from alignment.config.schema import Part, Recipe
from alignment.config.schema.kinds import Entry
from alignment.config.schema.parts import Mark, mappings_of, marks_of
from alignment.config.yaml_text import Location


def input_paths(recipe: Recipe) -> Iterator[str]:
    """Yield every path in a recipe whose content decides the result."""
    values = {**recipe.model_dump(), **recipe.library}
    return (path for _, path in located_inputs(type(recipe), values))


def input_modules(recipe: Recipe) -> Iterator[str]:
    """Yield the module of every function in a recipe whose code decides the result."""
    for _, info, value, _ in _fields(type(recipe), recipe.model_dump()):
        if Mark.CODE in marks_of(info) and isinstance(value, str):
            yield value.partition(":")[0]


def located_inputs(cls: type[Part], values: Mapping[str, Any]) -> Iterator[tuple[Location, str]]:
    """Yield every path whose content decides the result, with the location of its key.

    Args:
        cls: the schema of a recipe, or of a mapping in one. values: its values, all valid.
    """
    for at, info, value, beside in _fields(cls, values):
        marks = marks_of(info)
        if Mark.FILES in marks and value:
            yield from ((at, file) for file in named_files(beside))
        for each in value if isinstance(value, list) else [value]:
            is_path = isinstance(each, str) and each
            if is_path and (Mark.INPUT in marks or (Mark.TEXT_OR_INPUT in marks and _is_file(each))):
                yield at, each
    given = ((key, values.get(key)) for key, decides in FILES.items() if decides)
    yield from (((key,), value) for key, value in given if isinstance(value, str))


def _fields(
    cls: type[Part], values: Mapping[str, Any], at: Location = ()
) -> Iterator[tuple[Location, FieldInfo, Any, Mapping[str, Any]]]:
    """Yield every key of a mapping and of all mappings inside it: location, declaration, value, the key's mapping."""
    for name, info in cls.model_fields.items():
        here, value = (*at, name), values.get(name)
        yield here, info, value, values
        inner = [((*here, i), one) for i, one in enumerate(value)] if isinstance(value, list) else [(here, value)]
        for place, mapping in inner:
            if not isinstance(mapping, dict):
                continue
            kind = _class_of(mappings_of(info), mapping)
            if kind is not None:
                yield from _fields(kind, mapping, place)


def _class_of(classes: list[type[Part]], mapping: Mapping[str, Any]) -> type[Part] | None:
    """Return the class of a mapping: of several kinds, the one that `kind` selects."""
    for cls in classes:
        if not issubclass(cls, Entry) or mapping.get("kind") in cls.kind_names():
            return cls
    return None


def _is_file(text: str) -> bool:
    return "\n" not in text and os.path.isfile(text)
