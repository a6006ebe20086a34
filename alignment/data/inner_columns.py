"""Columns inside of lists: `completions.response` is `response` of each object in the column `completions`."""

from collections.abc import Mapping
from typing import Any

from alignment.data.keys import unread


def has_column(row: Mapping[str, Any], name: str) -> bool:
    """Whether a row has a column, or a list of objects of which one has the key behind the dot."""
    return name in row or _parted(row, name) is not None


def renamed(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Return a row with columns by the names of a layout.

    Args:
        columns: key of the layout → column of the file, or LIST.KEY. What the objects of the list hold beside such keys
            stays there where it is content, so that nothing is left out unseen.
    """
    ours_of = {theirs: ours for ours, theirs in columns.items()}
    inner = {ours: parts for ours, theirs in columns.items() if theirs not in row and (parts := _parted(row, theirs))}
    found = {ours_of.get(key, key): value for key, value in row.items()}
    for name in {name for name, _ in inner.values()}:
        taken = [key for other, key in inner.values() if other == name]
        rest = [_rest(one, taken) for one in row[name]]
        found |= {name: rest}
        if not any(rest):
            del found[name]
    return found | {ours: [_value(one, key) for one in row[name]] for ours, (name, key) in inner.items()}


def _parted(row: Mapping[str, Any], name: str) -> tuple[str, str] | None:
    """Return the list and the key that a name means; None where the row has no such list, or no object with the key."""
    head, dot, key = name.partition(".")
    objects = row.get(head) if dot else None
    if not isinstance(objects, list) or not any(isinstance(one, Mapping) and key in one for one in objects):
        return None
    return head, key


def _rest(one: Any, taken: list[str]) -> Any:
    return {key: one[key] for key in unread(one, (), taken)} if isinstance(one, Mapping) else one


def _value(one: Any, key: str) -> Any:
    return one.get(key) if isinstance(one, Mapping) else None
