"""Rows in groups by a note or a column."""

import json
import random
from collections.abc import Mapping, Sequence

from alignment.data.prepare.step import Rows, StepError

NONE = "null"  # the group of rows without a value


def groups_of(rows: Rows, by: str, step: str) -> dict[str, list[int]]:
    """Return the places of the rows by group, in the order in which the groups appear.

    Raises: StepError if no row has the note or the column.
    """
    found: dict[str, list[int]] = {}
    some = False
    for row in rows:
        value = row.column(by)
        some = some or value is not None
        found.setdefault(group_name(value), []).append(row.place)
    if not some:
        known = sorted({*row.notes, *row.value}) if len(rows) else []
        raise StepError(f"step {step}: no row has {by}; found {', '.join(known)}")
    return found


def group_name(value: object) -> str:
    """Return a group's name: a text as it is, other values as JSON."""
    return value if isinstance(value, str) else NONE if value is None else json.dumps(value, sort_keys=True)


def drawn(places: Sequence[int], count: int, draw: random.Random) -> Mapping[int, int]:
    """Return how often each of `count` drawn rows is taken: all equally often, but for a random rest."""
    times, rest = divmod(count, len(places)) if places else (0, 0)
    found = dict.fromkeys(places, times) if times else {}
    for place in draw.sample(places, rest):
        found[place] = times + 1
    return found
