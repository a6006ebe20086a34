"""The files and folders that a recipe reads, by what its keys are declared to be."""

import os
from collections.abc import Iterator

from alignment.config.library import FILES
from alignment.config.schema import Part, Recipe
from alignment.config.schema.parts import Mark, marks_of


def input_paths(part: Part) -> Iterator[str]:
    """Return every path in a recipe, or in a mapping inside one, whose content decides the result."""
    for name, info in type(part).model_fields.items():
        marks, value = marks_of(info), getattr(part, name)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, Part):
                yield from input_paths(each)
            elif isinstance(each, str) and each and Mark.INPUT in marks:
                yield each
            elif isinstance(each, str) and Mark.TEXT_OR_INPUT in marks and _is_file(each):
                yield each
    if isinstance(part, Recipe):
        given = [part.library.get(key) for key, decides in FILES.items() if decides]
        yield from (value for value in given if isinstance(value, str))


def _is_file(text: str) -> bool:
    return "\n" not in text and os.path.isfile(text)
