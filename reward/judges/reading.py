"""Finds the value in a judge model's reply: in JSON, at the end, or at the beginning."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from alignment.errors import JsonError
from alignment.strict_json import Limits, parse
from reward.judges.own_words import (
    ATTRIBUTION,
    Form,
    Line,
    Value,
    closing,
    is_open,
    is_shown,
    lines_of,
    opening,
    unfenced,
    unthought,
)

# A whole reply that is one JSON object, in a fence perhaps.
OBJECT = re.compile(r"\s*(?:```(?:json)?\s*)?(\{.*\})\s*(?:```)?\s*", re.DOTALL)
BRACE = re.compile(r"(?:\A|\n)[ \t]*(?=\{)")  # where an object that ends a reply may begin
LAST_OBJECTS = 20  # of the places where one may begin, the last that are tried
REPLY = Limits(whole=False)  # lone surrogates are allowed: only a label is kept


@dataclass(frozen=True, slots=True)
class Reading:
    """The value in a reply; at most one of the first three fields is set."""

    from_json: tuple[str, int] | None = (
        None  # by a JSON object: the text of the value, and where it begins in the reply
    )
    ending: Value | None = None  # by its last line or sentence
    opening: Value | None = None  # by its first line, which the rest may contradict
    lines: Sequence[Line] = ()  # of a reply without a value in JSON or at its end


def read(reply: str, keys: Sequence[str], form: Form, shown: Sequence[str] | None) -> Reading:
    """Find the value in a reply.

    A whole reply in JSON comes first, then the end of the reply, a JSON object that ends it, and its first line.

    Args:
        keys: of the value in a JSON object, which has one of them. form: of the value elsewhere.
        shown: the texts in the judge's prompt; None if they are unknown.
    """
    from_json = json_value(reply, keys)
    if from_json is not None:
        return Reading(from_json=from_json)
    reply = unthought(unfenced(reply))
    lines = lines_of(reply)
    if not lines:
        return Reading()
    ending = closing(lines, reply, form, shown)
    if ending is not None:
        return Reading(ending=ending)
    from_json = ending_object(reply, keys, shown)
    if from_json is not None:
        return Reading(from_json=from_json)
    return Reading(opening=opening(lines, reply, form, shown), lines=lines)


def json_value(reply: str, keys: Sequence[str]) -> tuple[str, int] | None:
    """Return what a reply that is one JSON object gives under one of `keys`, as a text, and where it begins there.

    Returns: None if the reply is no such object. ("", 0) where it is, and none or several of the keys are there, one
        is given twice, or it is of another type: the object may be something quoted.
    """
    match = OBJECT.fullmatch(reply)
    if match is None:
        return None
    try:
        value = parse(match[1], REPLY)
    except JsonError:
        return None
    any_of = "|".join(keys)
    places = [match.start(1) + place.end() for place in re.finditer(rf'(?<!\\)"(?:{any_of})"\s*:\s*"?', match[1])]
    given = [key for key in keys if key in value]
    if len(given) != 1 or len(places) != 1:
        return "", 0
    found = value[given[0]]
    if isinstance(found, list) and found and all(isinstance(each, str) for each in found):
        return ", ".join(found), places[0]
    readable = isinstance(found, str) or (isinstance(found, int | float) and not isinstance(found, bool))
    return (str(found), places[0]) if readable else ("", 0)


def ending_object(reply: str, keys: Sequence[str], shown: Sequence[str] | None) -> tuple[str, int] | None:
    """Return what a JSON object gives that ends a reply behind other words; None if there is none, or it is quoted.

    It counts as quoted, too, where a text that was shown holds it.
    """
    for start in reversed([place.end() for place in BRACE.finditer(reply)][-LAST_OBJECTS:]):
        value = json_value(reply[start:], keys)
        if value is None:
            continue
        before = reply[:start]
        if before.count("```") % 2:  # the object may be in a code block
            before = re.sub(r"(?:\A|\n)[ \t]*```(?:json)?\s*\Z", "\n", before)
        words = lines_of(before)
        introduced = words and words[-1].text.endswith(":") and ATTRIBUTION.search(words[-1].text)
        if introduced or is_open(before) or (shown is not None and is_shown(reply[start:], shown)):
            return None
        return (value[0], start + value[1]) if value[0] else None
    return None
