"""The files and folders that a recipe reads, by what its keys are declared to be."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from alignment.config.data_files import named_files
from alignment.config.library import FILES
from alignment.config.schema import Part, Recipe
from alignment.config.schema.kinds import Entry
from alignment.config.schema.parts import Mark, mappings_of, marks_of
from alignment.config.yaml_text import Location


def input_paths(recipe: Recipe) -> Iterator[str]:
    """Yield every path in a recipe whose content decides the result."""
    yield from (path for _, path in located_inputs(type(recipe), {**recipe.model_dump(), **recipe.library}))


def located_inputs(cls: type[Part], values: Mapping[str, Any], at: Location = ()) -> Iterator[tuple[Location, str]]:
    """Yield every path whose content decides the result, with the location of its key.

    Args:
        cls: the schema of a recipe, or of a mapping inside one. values: its values, which have passed `cls`.
    """
    for name, info in cls.model_fields.items():
        marks, value = marks_of(info), values.get(name)
        several = isinstance(value, list)
        for place, each in enumerate(value if several else [value]):
            if isinstance(each, dict):
                inner = _class_of(mappings_of(info), each)
                if inner is not None:
                    yield from located_inputs(inner, each, (*at, name, place) if several else (*at, name))
            elif isinstance(each, str) and each:
                if Mark.INPUT in marks or (Mark.TEXT_OR_INPUT in marks and _is_file(each)):
                    yield (*at, name), each
        if Mark.FILES in marks and value:
            yield from (((*at, name), file) for file in named_files(values))
    if issubclass(cls, Recipe):
        given = ((key, values.get(key)) for key, decides in FILES.items() if decides)
        yield from (((key,), value) for key, value in given if isinstance(value, str))


def _class_of(classes: list[type[Part]], mapping: Mapping[str, Any]) -> type[Part] | None:
    """Return the class of a mapping: of several kinds, the one that `kind` selects."""
    for cls in classes:
        if not issubclass(cls, Entry) or mapping.get("kind") in cls.kind_names():
            return cls
    return None


def _is_file(text: str) -> bool:
    return "\n" not in text and os.path.isfile(text)
