"""The words in which a recipe's faults are told."""

import difflib
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

import pydantic

from alignment.config.documents import Location
from alignment.config.library import KINDS, Kind

BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def shown(value: Any) -> str:
    """Return a value as YAML would have it, shortened."""
    text = (
        {True: "true", False: "false", None: "null"}[value]
        if value is None or value is True or value is False
        else repr(value)
    )
    return text if len(text) <= 60 else text[:57] + "..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean NEAREST?`, or nothing where none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def wrong_kind(value: Any, kind: Kind | str, choices: Iterable[str] = ()) -> str:
    """Say what a key takes and what was found."""
    choices = kind.choices if isinstance(kind, Kind) else tuple(choices)
    message = f"must be {kind}, found {shown(value)}"
    if isinstance(value, str):
        message += did_you_mean(value, choices)
        truthy = str(kind).startswith("true or false")
        if truthy and value.lower() in ("yes", "no", "on", "off", "y", "n"):
            message += f"; write {'true' if value.lower() in ('yes', 'on', 'y') else 'false'}"
    return message


def annotation_text(annotation: Any) -> str:
    """Name what a typed field takes: "a whole number or null"."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Annotated:
        return annotation_text(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(annotation_text(argument) for argument in arguments)
    if origin is Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(map(str, arguments))
    if origin is list:
        return f"a list of {annotation_text(arguments[0])}"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)):
        return "mappings"
    if annotation is type(None):
        return "null"
    return KINDS.get(getattr(annotation, "__name__", ""), "anything")


def from_pydantic(
    error: pydantic.ValidationError, cls: type[pydantic.BaseModel], values: dict[str, Any]
) -> list[tuple[Location, str]]:
    """Turn pydantic's errors into (location, message), one for each value at fault."""
    found: dict[Location, str] = {}
    for entry in error.errors(include_url=False):
        location, rest = _place(entry["loc"], values, entry["type"] == "missing")
        if location not in found:
            found[location] = _message(entry, location, cls, bool(rest))
    return list(found.items())


def _place(raw: tuple[str | int, ...], values: Any, missing: bool) -> tuple[Location, tuple[str | int, ...]]:
    """Keep the steps that exist in the values; pydantic adds the branch of a union to the path."""
    location: list[str | int] = []
    for index, step in enumerate(raw):
        if isinstance(values, dict) and step in values:
            values = values[step]
            location.append(step)
        elif isinstance(values, list) and isinstance(step, int):
            values = values[step]
            location.append(step)
        elif missing and index == len(raw) - 1:
            location.append(step)
        else:
            return tuple(location), raw[index:]
    return tuple(location), ()


def _message(entry: Any, location: Location, cls: type[pydantic.BaseModel], in_union: bool) -> str:
    annotation = _annotation(cls, location)
    match entry["type"]:
        case "missing":
            return "the required key is missing"
        case "extra_forbidden":
            parent = _annotation(cls, location[:-1])
            options = (parent, *get_args(parent))
            models = [o for o in options if isinstance(o, type) and issubclass(o, pydantic.BaseModel)]
            names = models[0].model_fields if models else ()
            return f"no such key{did_you_mean(str(location[-1]), names)}"
        case "too_short":
            return "must have at least one entry"
        case "string_too_short":
            return "must not be empty"
        case bound if bound in BOUNDS:
            name, words = BOUNDS[bound]
            return f"must be {words} {entry['ctx'][name]:.10g}, found {shown(entry['input'])}"
        case "value_error":
            return str(entry["ctx"]["error"])
    value = entry["input"]
    text = annotation_text(annotation)
    if text == "mappings":
        text = "a mapping"
    return wrong_kind(value, text, _literals(annotation))


def _annotation(cls: Any, location: Location) -> Any:
    """Walk the types of a model down to a location."""
    annotation: Any = cls
    for step in location:
        options = [annotation, *get_args(annotation)]
        if isinstance(step, int):
            lists = [option for option in options if get_origin(option) is list]
            annotation = get_args(lists[0])[0] if lists else None
        else:
            models = [o for o in options if isinstance(o, type) and issubclass(o, pydantic.BaseModel)]
            info = models[0].model_fields.get(step) if models else None
            annotation = info.annotation if info else None
    return annotation


def _literals(annotation: Any) -> list[str]:
    options = [annotation, *get_args(annotation)]
    return [str(value) for option in options if get_origin(option) is Literal for value in get_args(option)]
