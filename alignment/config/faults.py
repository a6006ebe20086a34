"""The messages for a recipe's faults."""

import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args, get_origin

import pydantic

from alignment.config.documents import Location
from alignment.config.library import KINDS, Kind
from alignment.config.schema.kinds import Entry

BOUNDS = {
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def shown(value: Any) -> str:
    """Return a value as in YAML, shortened."""
    text = (
        {True: "true", False: "false", None: "null"}[value]
        if value is None or value is True or value is False
        else repr(value)
    )
    return text if len(text) <= 60 else text[:57] + "..."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean NEAREST?`, or nothing if no known word is close."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def wrong_kind(value: Any, kind: Kind | str, choices: Iterable[str] = ()) -> str:
    """Return a message with the type that a key takes and the value that was found."""
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
        return " or ".join(dict.fromkeys(annotation_text(argument) for argument in arguments))
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
        location, message = _fault(entry, cls, values)
        found.setdefault(location, message)
    return list(found.items())


def _fault(entry: Any, cls: type[pydantic.BaseModel], values: dict[str, Any]) -> tuple[Location, str]:
    location = _place(entry["loc"], values, entry["type"] == "missing")
    if entry["type"] == "union_tag_not_found":
        models = [part for part in parts_in(_annotation(cls, location, values)) if issubclass(part, Entry)]
        kinds = [name for model in models for name in model.kind_names()]
        return (*location, "kind"), f"the required key is missing; it is one of {', '.join(kinds)}"
    if entry["type"] == "union_tag_invalid":
        kinds = re.findall(r"'([^']*)'", entry["ctx"]["expected_tags"])
        return (*location, "kind"), wrong_kind(entry["ctx"]["tag"], f"one of {', '.join(kinds)}", kinds)
    if entry["type"] == "missing" and location:
        model = _model(_annotation(cls, location[:-1], values), _value(location[:-1], values))
        needs = getattr(model, "NEEDS", None)
        if needs and location[-1] == needs[0]:
            return location[:-1], f"a {model.FAMILY} of kind {model.kind_names()[0]} needs {needs[0]}, {needs[1]}"
    return location, _message(entry, location, cls, values)


def _place(raw: tuple[str | int, ...], values: Any, missing: bool) -> Location:
    """Keep the steps that exist in the values; pydantic adds the branch of a union to the path."""
    location: list[str | int] = []
    entered = False  # a union's branch comes first in a mapping that has a kind
    for index, step in enumerate(raw):
        if entered and isinstance(values, dict) and step == values.get("kind"):
            entered = False
            continue
        if (isinstance(values, dict) and step in values) or (isinstance(values, list) and isinstance(step, int)):
            values = values[step]  # type: ignore[index]  # an index of a list, a key of a mapping
        elif not (missing and index == len(raw) - 1):
            break
        location.append(step)
        entered = True
    return tuple(location)


def _message(entry: Any, location: Location, cls: type[pydantic.BaseModel], values: dict[str, Any]) -> str:
    annotation = _annotation(cls, location, values)
    match entry["type"]:
        case "missing":
            return "the required key is missing"
        case "extra_forbidden":
            model = _model(_annotation(cls, location[:-1], values), _value(location[:-1], values))
            if model and issubclass(model, Entry):
                told = model.foreign(str(location[-1])) or _no_such_key(location, model.keys_of_all_kinds())
                taken = ", ".join(key for key in model.model_fields if key != "kind")
                end = "" if told.endswith("?") else "."
                return f"{told}{end} A {model.FAMILY} of kind {model.kind_names()[0]} takes {taken or 'no other key'}"
            return _no_such_key(location, model.model_fields if model else ())
        case "too_short":
            least = entry["ctx"]["min_length"]
            return "must have at least one entry" if least == 1 else f"must have at least {least} entries"
        case "string_pattern_mismatch":
            return f"must match the pattern {entry['ctx']['pattern']}, found {shown(entry['input'])}"
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


def _no_such_key(location: Location, known: Iterable[str]) -> str:
    return f"no such key{did_you_mean(str(location[-1]), known)}"


def _annotation(cls: Any, location: Location, values: Any) -> Any:
    """Walk the types of a model down to a location, by the kinds that the values give."""
    annotation: Any = cls
    for place, step in enumerate(location):
        if isinstance(step, int):
            lists = [option for option in _options(annotation) if get_origin(option) is list]
            annotation = get_args(lists[0])[0] if lists else None
        else:
            model = _model(annotation, _value(location[:place], values))
            info = model.model_fields.get(step) if model else None
            annotation = info.annotation if info else None
    return annotation


def _model(annotation: Any, value: Any) -> Any:
    """Return the model that a mapping is read by: of a union of kinds, the one of its kind."""
    models = [o for o in _options(annotation) if isinstance(o, type) and issubclass(o, pydantic.BaseModel)]
    kind = value.get("kind") if isinstance(value, dict) else None
    by_kind = (model for model in models if issubclass(model, Entry) and kind in model.kind_names())
    return next(by_kind, models[0] if models else None)


def parts_in(annotation: Any) -> Iterator[type[pydantic.BaseModel]]:
    """Yield the classes of the mappings that an annotation takes, also inside of lists."""
    for option in _options(annotation):
        if isinstance(option, type) and issubclass(option, pydantic.BaseModel):
            yield option
        elif get_origin(option) is list:
            yield from parts_in(get_args(option)[0])


def _options(annotation: Any) -> list[Any]:
    """Return an annotation and what its unions are made of."""
    found = [annotation]
    if get_origin(annotation) in (typing.Annotated, typing.Union, types.UnionType):
        found += [option for argument in get_args(annotation) for option in _options(argument)]
    return found


def _value(location: Location, values: Any) -> Any:
    """Return the value at a location; None if there is none."""
    for step in location:
        try:
            values = values[step]
        except (KeyError, IndexError, TypeError):
            return None
    return values


def _literals(annotation: Any) -> list[str]:
    options = [annotation, *get_args(annotation)]
    return [str(value) for option in options if get_origin(option) is Literal for value in get_args(option)]
