"""Labels of single answers, good or bad, in the forms in which data sets write them."""

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from alignment.data.fields import BadRow
from alignment.data.keys import plain_name
from alignment.data.rankings import probability_of
from alignment.errors import DataError, printable
from alignment.strict_json import shown

KEYS = ("label", "kto_tag")  # TRL's, and LLaMA-Factory's
PROBABILITY = "probability"  # that the answer is good, in place of a label
_GOOD, _BAD = ("desirable", "chosen", "thumbs_up"), ("undesirable", "rejected", "thumbs_down")
_WORDS = {"true": True, "false": False, **dict.fromkeys(_GOOD, True), **dict.fromkeys(_BAD, False)}
_SAID = (  # further words that say good or bad of a text, which are no classes of texts
    "good bad yes no up down accepted accept reject preferred dispreferred like liked dislike disliked upvote downvote "
    "helpful unhelpful harmful safe unsafe correct incorrect right wrong pass passed fail failed keep drop"
)
_VERDICTS = frozenset((*_WORDS, *_SAID.split()))
ALLOWED = f"true or false, 1 or 0, {', '.join(f'{good} or {bad}' for good, bad in zip(_GOOD, _BAD, strict=True))}"


def label_of(row: Mapping[str, Any]) -> float:
    """Return the probability that a row's answer is good: 1 or 0 for a label.

    Raises: BadRow where the row has two labels, or one in no form that is known.
    """
    keys = [key for key in (*KEYS, PROBABILITY) if row.get(key) is not None] or [KEYS[0]]
    if len(keys) > 1:
        raise BadRow(f"the row has {' and '.join(keys)}; keep one")
    if keys == [PROBABILITY]:
        return probability_of(row[PROBABILITY], f"'{PROBABILITY}'")
    label = row.get(keys[0])
    number = _number(label)
    found = _WORDS.get(plain_name(label.strip())) if isinstance(label, str) and number is None else None
    if number in (0.0, 1.0):
        found = number == 1.0
    if found is None:
        raise BadRow(
            f"'{keys[0]}' is {shown(label)}, which marks no answer as good or bad; write {ALLOWED}, or set "
            f"ignore_columns: [{keys[0]}] to read the row without it"
        )
    return float(found)


def is_class(label: Any) -> bool:
    """Whether a label may be the class of a text: a number from 0, a name, or a list of these, but no good or bad."""
    if isinstance(label, list):
        return all(map(is_class, label))
    if isinstance(label, str):
        number = _number(label)
        return plain_name(label.strip()) not in _VERDICTS if number is None else is_class(number)
    number = isinstance(label, int | float) and not isinstance(label, bool)
    return label is None or (number and label >= 0 and float(label).is_integer())


def require_thumbs(rows: Iterable[tuple[str, Any]]) -> None:
    """Refuse a file whose labels are ratings, of which 1 may be the worst.

    Args:
        rows: "file:line" and the row.
    Raises: DataError naming the first label that is another number than 0 and 1.
    """
    for where, row in rows:
        for key in KEYS if isinstance(row, Mapping) else ():
            number = _number(row.get(key))
            if number is not None and number not in (0.0, 1.0):
                raise DataError(
                    f"{printable(where)}: '{key}' is {shown(row[key])}, so the labels of this file are ratings or "
                    f"classes, and 1 and 0 do not mean good and bad. Write {ALLOWED}, or set ignore_columns: [{key}]."
                )


def _number(label: Any) -> float | None:
    """Return a label's number, also of one that is text; None where it is none."""
    if isinstance(label, str):
        with contextlib.suppress(ValueError):
            return float(label)
        return None
    return float(label) if isinstance(label, int | float) else None
