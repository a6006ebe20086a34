"""Strict parsing of JSON from other programs: valid types, finite numbers, limited size and depth.

Every reader of such JSON uses `parse`; values from Parquet, Arrow or YAML go through `check`. Both raise `JsonError`,
a `ValueError`, which names the key.
"""

import functools
import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from alignment.errors import JsonError, NotJson

Path = tuple[str | int, ...]  # keys and indices from the root to a part of a value
BLANKS = " \t\n\r"  # between JSON's parts
_SURROGATES = ("\\ud", "\\uD")  # beginnings of half of a surrogate pair in JSON text
_BITS_PER_DIGIT = math.log2(10)


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on a value."""

    size: int = 16 * 2**20  # characters or bytes of the text
    depth: int = 128  # lists and objects inside one another
    digits: int = 100  # of one integer
    finite: bool = True  # no NaN or Infinity
    whole: bool = True  # no half of a surrogate pair: it is not a character, and no tokenizer reads it
    unique: bool = True  # no key twice in one object


FOREIGN = Limits()  # data, replies, models' files
# Files of our runs: a diverged loss is NaN, and a judge's reply is stored unchanged.
OURS = Limits(size=2**30, finite=False, whole=False)


class _Suspect(Exception):
    """The fast parser found a value that may break a limit."""


@dataclass(frozen=True, slots=True)
class _Fault:
    """Placeholder in a parsed value for a part that breaks a limit."""

    reason: str


def parse(text: str | bytes, limits: Limits = FOREIGN) -> Any:
    """Return the value of a JSON text.

    Raises: NotJson if it is not JSON; JsonError, which names the key, if it breaks a limit.
    """
    if len(text) > limits.size:
        unit = "bytes" if isinstance(text, bytes) else "characters"
        raise JsonError(f"the JSON text has {len(text):,} {unit}; the limit is {limits.size:,}")
    if isinstance(text, bytes):
        text = decoded(text)
    value, fault, end = scan(text, len(text) - len(text.lstrip(BLANKS)), limits)
    rest = text[end:].lstrip(BLANKS)
    if rest:
        raise _not_json(json.JSONDecodeError("Extra data", text, len(text) - len(rest)))
    if fault is not None:
        raise JsonError(fault)
    return value


def scan(text: str, start: int, limits: Limits = FOREIGN) -> tuple[Any, str | None, int]:
    """Read one value of a longer text.

    Returns: the value, its fault or None, and the position of its end. Raises: NotJson if there is no value, and
    JsonError if it is too deep to find its end.
    """
    try:
        try:
            (value, end), suspect = _decoder(limits, _suspect).raw_decode(text, start), False
        except _Suspect:
            (value, end), suspect = _decoder(limits, _Fault).raw_decode(text, start), True
    except json.JSONDecodeError as error:
        raise _not_json(error) from None
    except RecursionError:
        raise JsonError(f"invalid JSON: more than {limits.depth} lists and objects inside one another") from None
    if end - start > limits.size:
        return None, f"the value has {end - start:,} characters; the limit is {limits.size:,}", end
    # Only a text with that many brackets can be too deep, and only an escape can spell half of a surrogate pair.
    suspect = suspect or text.count("[", start, end) + text.count("{", start, end) > limits.depth
    if suspect or (limits.whole and any(text.find(half, start, end) >= 0 for half in _SURROGATES)):
        try:
            check(value, limits)
        except JsonError as error:
            return None, str(error), end
    return value, None, end


def _not_json(error: json.JSONDecodeError) -> NotJson:
    found = NotJson(f"invalid JSON: {error}")
    found.position = error.pos
    return found


def decoded(content: bytes) -> str:
    """Return bytes as text.

    Raises: JsonError with the byte and its position where they are not UTF-8.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JsonError(f"invalid UTF-8: byte 0x{content[error.start]:02x} at position {error.start}") from error


def check(value: Any, limits: Limits = FOREIGN, path: Path = ()) -> None:
    """Check a value of JSON's types.

    Raises: JsonError with the key whose value has another type, is not finite, too deep or invalid text.
    """
    if len(path) >= limits.depth and isinstance(value, dict | list | tuple):
        raise JsonError(f"{spelled(path[:3])} holds more than {limits.depth} lists and objects inside one another")
    if isinstance(value, str):
        _check_text(value, path, limits)
    elif isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, str):
                raise JsonError(f"{spelled(path)} has the key {shown(key)}, which is not text")
            if limits.whole and not is_whole(key):
                raise JsonError(f"{spelled(path)} has the key {shown(key)}, which holds half of a surrogate pair")
            check(part, limits, (*path, key))
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            check(part, limits, (*path, index))
    elif isinstance(value, _Fault):
        raise JsonError(f"{spelled(path)} {value.reason}")
    elif isinstance(value, int):
        if value.bit_length() > limits.digits * _BITS_PER_DIGIT:
            raise JsonError(f"{spelled(path)} is an integer of more than {limits.digits} digits")
    elif isinstance(value, float):
        if limits.finite and not math.isfinite(value):
            raise JsonError(f"{spelled(path)} is {value}, which is not a finite number")
    elif value is not None:
        raise JsonError(f"{spelled(path)} is of the type {type(value).__name__}, which JSON does not have")


def is_whole(text: str) -> bool:
    """Whether a text holds no half of a surrogate pair, which JSON can spell and UTF-8 cannot."""
    return _surrogate_at(text) is None


def spelled(path: Path) -> str:
    """Write a path like `'messages[0].content'`; long and unprintable keys are shortened and escaped."""
    words = ""
    for step in path:
        words += f"[{step}]" if isinstance(step, int) else f"{'.' if words else ''}{shown(step)[1:-1]}"
    return f"'{words}'" if words else "the value"


def shown(value: object, longest: int = 60) -> str:
    """Quote a value in a message: one printable line, shortened."""
    try:
        text = repr(value[:longest] if isinstance(value, str) else value)
    except ValueError:  # Python does not convert integers of more than 4,300 digits
        return "an integer of thousands of digits"
    short = len(text) <= longest and not (isinstance(value, str) and len(value) > longest)
    return text if short else f"{text[: longest - 2]}…{text[-1] if isinstance(value, str) else ''}"


def _check_text(text: str, path: Path, limits: Limits) -> None:
    place = _surrogate_at(text) if limits.whole else None
    if place is not None:
        raise JsonError(f"{spelled(path)} holds half of a surrogate pair at position {place}, which is not a character")


def _surrogate_at(text: str) -> int | None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def _suspect(reason: str) -> _Fault:
    raise _Suspect(reason)


@functools.cache
def _decoder(limits: Limits, faulty: Callable[[str], _Fault]) -> json.JSONDecoder:
    """Return a decoder that passes values that break a limit to `faulty`."""

    def whole_number(text: str) -> int | _Fault:
        if len(text) - text.startswith("-") > limits.digits:
            return faulty(f"is an integer of {len(text):,} digits; the limit is {limits.digits}")
        return int(text)

    def real_number(text: str) -> float | _Fault:
        value = float(text)
        if math.isinf(value) and limits.finite:
            return faulty(f"is {shown(text)[1:-1]}, which no float can hold")
        if not value and limits.finite and text.lower().partition("e")[0].strip("-0."):
            return faulty(f"is {shown(text)[1:-1]}, which a float holds as zero")
        return value

    def constant(text: str) -> float | _Fault:
        return faulty(f"is {text}, which is not a finite number") if limits.finite else float(text)

    def keyed(pairs: list[tuple[str, Any]]) -> Any:
        found = dict(pairs)
        if len(found) < len(pairs) and limits.unique:
            twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
            return faulty(f"has the key {shown(twice)} twice; take one out")
        return found

    return json.JSONDecoder(
        parse_int=whole_number, parse_float=real_number, parse_constant=constant, object_pairs_hook=keyed
    )
