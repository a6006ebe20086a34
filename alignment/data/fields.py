"""The fields of a row: texts that must be whole, and how a faulty field is named."""

import json
import re
from collections.abc import Iterator
from typing import Any

from alignment.errors import JsonError
from alignment.strict_json import FOREIGN, check, parse, shown

NUL = "\0"
_OPENINGS = ("[", "{", " ", "\r", "\n", "\t")
_OBJECT = re.compile(r"\s*(\[\s*)?\{\s*['\"]")
_SPEAKER, _BODY = (re.compile(rf"['\"]({keys})['\"]\s*:") for keys in ("role|from", "content|value|tool_calls"))


class BadRow(ValueError):
    """The fault of one row; the reader of the file adds the location."""


class BrokenJson(str):
    """Text that should have been JSON, in a cell of a CSV; `reason` is what is wrong with it."""

    reason: str = ""


class Unreadable:
    """A cell that cannot be read; a layout that reads it rejects the row with `reason`."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def text_of(row: dict[str, Any], key: str, *, empty: bool = False) -> str:
    """Return the string under `key`; missing, of another type, or blank unless `empty`, is a `BadRow`."""
    if key not in row:
        raise BadRow(f"the field '{key}' is missing; found {keys_of(row)}")
    text = text_in(row[key], f"'{key}'", empty=empty)
    if is_messages(text):
        raise BadRow(f"'{key}' is a list of messages as text, which this layout does not read; give JSON as messages")
    return text


def is_messages(text: str) -> bool:
    """Whether a text is a list of messages, a message or a row with messages, as JSON or as Python prints it."""
    if not text.startswith(_OPENINGS) or not (_OBJECT.match(text) and _SPEAKER.search(text) and _BODY.search(text)):
        return False
    try:
        return _holds_messages(parse(text))
    except JsonError:  # as Python prints it, perhaps
        return "'" in text


def _holds_messages(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(is_message(one) for one in value)
    return is_message(value) or (
        isinstance(value, dict) and any(_holds_messages(value.get(key)) for key in ("messages", "conversations"))
    )


def is_message(value: Any) -> bool:
    """Whether a value is one message, OpenAI's or ShareGPT's."""
    return isinstance(value, dict) and (
        ("role" in value and ("content" in value or "tool_calls" in value)) or ("from" in value and "value" in value)
    )


def optional_text(row: dict[str, Any], key: str) -> str:
    """Return the string under `key`, or "" if it is absent or null."""
    return "" if row.get(key) is None else text_of(row, key, empty=True)


def checked(value: Any, key: str) -> Any:
    """Return a value that is kept as JSON; one that JSON, UTF-8 or a limit does not allow is a `BadRow`."""
    try:
        check(value, FOREIGN, (key,))
    except JsonError as error:
        raise BadRow(str(error)) from None
    return value


def checked_text(value: Any, key: str) -> Any:
    """Return a value as `checked` does; NUL in it is a `BadRow` too."""
    for text in texts_in(checked(value, key)):
        whole_text(text, f"'{key}'")
    return value


def texts_in(value: Any) -> Iterator[str]:
    """Yield keys and texts at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, part in value.items():
            yield name
            yield from texts_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from texts_in(part)


def text_in(value: Any, what: str, *, empty: bool = False) -> str:
    """Return a value that must be text, and not blank unless `empty`."""
    if not isinstance(value, str):
        raise BadRow(f"{what} is {kind_of(value)}, not text")
    if not empty and not value.strip():
        raise BadRow(f"{what} is empty")
    return whole_text(value, what)


def whole_text(value: str, what: str, *, sampled: bool = False) -> str:
    """Return a text; one with half of a surrogate pair, which no tokenizer reads, or with NUL is a `BadRow`.

    Args:
        sampled: a policy wrote the text; it may hold NUL, and its tokens are kept.
    """
    if NUL in value and not sampled:
        raise BadRow(
            f"{what} holds a NUL character at position {value.index(NUL)}, as no text does: tokenizers drop it, or "
            "read it as an unknown token; remove it"
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRow(
            f"{what} holds half of a surrogate pair at position {error.start}, which is not a character"
        ) from None
    return value


def is_whole(value: Any) -> bool:
    """Whether no text in a JSON value holds half of a surrogate pair, which JSON can spell and no tokenizer reads."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def keys_of(row: dict[str, Any]) -> str:
    """List a row's keys in a message, the first ones where there are many."""
    names = [name if name.isprintable() and len(name) <= 60 else shown(name)[1:-1] for name in map(str, row)]
    names = [name if name.strip() else repr(name) for name in names]
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "") or "no field"


def kind_of(value: Any) -> str:
    """Return JSON's word for what `value` is."""
    if isinstance(value, Unreadable):
        return value.reason
    if isinstance(value, BrokenJson):
        return f"text that is no JSON ({value.reason})"
    names = {dict: "an object", list: "a list", bool: "a boolean", int: "a number", float: "a number", str: "text"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
