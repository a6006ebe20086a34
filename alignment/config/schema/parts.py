"""The base class of all mappings of a recipe's schema, and the marks with which keys are declared."""

from collections.abc import Iterator
from enum import Enum
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

DAY = 86_400.0  # seconds, the upper bound of all time limits
AnyType = TypeVar("AnyType")


class Mark(Enum):
    """The declaration of a key.

    A key that takes text has one of the first seven marks. A key without FREE decides the result. Keys of the mappings
    inside a recipe are never FREE.
    """

    WORDS = "text that names no file"
    INPUT = "a file or folder that is read, or a Hub id: its content decides the result"
    TEXT_OR_INPUT = "text, or the path of a file that holds it"
    FILES = "files that are read, or glob patterns of them, relative to the path of the mapping"
    CODE = "a Python function, module:function, whose code decides the result"
    PATH = "a path that is read relative to another key's, or by another stage"
    OUTPUT = "a folder that is written"
    FREE = "does not affect the result: a run keeps its identity, and resumes, if it changes"
    LATE = "decides the result, and may change before an interrupted run is resumed"


PATH_MARKS = {Mark.INPUT, Mark.TEXT_OR_INPUT, Mark.FILES, Mark.PATH, Mark.OUTPUT}
Text = Annotated[str, Field(min_length=1)]  # an empty path would be the working folder
Words = Annotated[str, Mark.WORDS]  # may be empty
Function = Annotated[str, Mark.CODE]
Name = Annotated[Text, Mark.WORDS]
InputPath = Annotated[Text, Mark.INPUT]
TextOrPath = Annotated[Text, Mark.TEXT_OR_INPUT]
FilePattern = Annotated[str, Mark.FILES]
OtherPath = Annotated[str, Mark.PATH]  # may be empty
OutputPath = Annotated[Text, Mark.OUTPUT]
Free = Annotated[AnyType, Mark.FREE]
Late = Annotated[AnyType, Mark.LATE]


class Part(BaseModel):
    """A mapping inside a recipe."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, protected_namespaces=(), use_attribute_docstrings=True
    )


def marks_of(info: FieldInfo) -> set[Mark]:
    """Return what a key is declared to be."""
    return {mark for mark in [*info.metadata, *_arguments(info.annotation)] if isinstance(mark, Mark)}


def takes_undeclared_text(info: FieldInfo) -> bool:
    """Whether a key takes text and is not declared to be words, a function or a path."""
    takes_text = str in (info.annotation, *_arguments(info.annotation))
    return takes_text and not marks_of(info) & {Mark.WORDS, Mark.CODE, *PATH_MARKS}


def takes_text_alone(info: FieldInfo) -> bool:
    """Whether a key takes text, or null, and nothing else."""
    kinds = set(_alternatives(info.annotation))
    return str in kinds and kinds <= {str, type(None)}


def mappings_of(info: FieldInfo) -> list[type[Part]]:
    """Return the kinds of mappings that a key takes, alone or in a list."""
    kinds = (info.annotation, *_arguments(info.annotation))
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Part)]


def parts_within(cls: type[Part]) -> Iterator[type[Part]]:
    """Return the mapping and all mappings that its keys take, each once."""
    found, rest = [], [cls]
    while rest:
        part = rest.pop()
        if part in found:
            continue
        found.append(part)
        yield part
        for info in part.model_fields.values():
            rest += mappings_of(info)


def _alternatives(annotation: Any) -> Iterator[Any]:
    """Return the types of a union, without what they are annotated with."""
    if get_origin(annotation) is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for kind in get_args(annotation):
            yield from _alternatives(kind)
    else:
        yield annotation


def _arguments(annotation: Any) -> Iterator[Any]:
    """Return all types and marks inside an annotation; of a mapping with keys of the user's, those of its values."""
    arguments = get_args(annotation)
    for argument in arguments[1:] if get_origin(annotation) is dict else arguments:
        yield argument
        yield from _arguments(argument)
