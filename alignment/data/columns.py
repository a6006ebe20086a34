"""A recipe's `columns` and `ignore_columns`: the names of a file's columns brought to those of the layouts."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from alignment.data.detection import decoded
from alignment.data.fields import keys_of
from alignment.data.inner_columns import has_column, renamed
from alignment.data.readers import RawRow, RawSource
from alignment.errors import DataError
from alignment.strict_json import shown

# Objects inside of rows that hold what is read: of exports of annotation tools, and a message's calls.
_PARTS = ("fields", "data", "value", "input", "function", "function_call")
_WHOLE = ("tools", "functions", "function_definitions", "content")  # whose objects have keys of their own
_CALLS = ("tool_calls", "function_call", "function")
_OF_CALLS = frozenset(("id", "type", "index", "function", "name", "arguments"))  # which calls need


def named_as_ours(sources: list[RawSource], columns: dict[str, str], ignored: frozenset[str]) -> list[RawSource]:
    """Leave out the keys `ignored` of rows and their messages, and rename columns.

    Args:
        sources: all files of one entry. columns: key of a layout → column of the file.
    Raises: DataError if no row has such a column, two keys take one column, a key is there already, or nothing has
        a key that is to be left out.
    """
    seen: set[str] = set()
    found = [_renamed(source, columns, ignored, seen) for source in sources]
    if any(source.rows for source in sources):
        require_seen(ignored, seen, sources[0].name)
    return found


def require_seen(ignored: Collection[str], seen: Collection[str], name: str) -> None:
    """Refuse names of keys to leave out that nothing in the file `name` has.

    Raises: DataError.
    """
    if absent := sorted(set(ignored) - set(seen)):
        raise DataError(
            f"{name}: ignore_columns names {', '.join(map(shown, absent))}, which no row and no message has. Correct "
            "the name, or take it out."
        )


def _renamed(source: RawSource, columns: dict[str, str], ignored: frozenset[str], seen: set[str]) -> RawSource:
    require_mapped(source, columns)
    return replace(source, rows=[named_row(row, columns, ignored, seen) for row in source.rows])


def require_mapped(source: RawSource, columns: Mapping[str, str]) -> None:
    """Refuse a mapping from keys of a layout to columns, of which no row has one, or that takes one twice.

    Raises: DataError.
    """
    theirs_of = list(columns.values())
    twice = next((theirs for theirs in theirs_of if theirs_of.count(theirs) > 1), None)
    if twice is not None:
        raise DataError(f"{source.name}: columns takes {shown(twice)} for two keys; a column has one meaning.")
    first = next((row for row in source.rows if isinstance(row.value, dict)), None)
    for ours, theirs in columns.items():
        if first is not None and not any(
            isinstance(row.value, dict) and has_column(row.value, theirs) for row in source.rows
        ):
            raise DataError(
                f"{first.where}: columns takes {ours} from {shown(theirs)}, which no row has; found "
                f"{keys_of(first.value)}. Write columns: {{KEY OF THE LAYOUT: COLUMN OF THE FILE}}, or LIST.KEY for a "
                "key of the objects in a list."
            )


def named_row(row: RawRow, columns: Mapping[str, str], ignored: frozenset[str], seen: set[str]) -> RawRow:
    """Return a row as `named_as_ours` does; `seen` gets the keys that are left out of it."""
    value = without(row.value, ignored, seen) if ignored else row.value
    if columns and isinstance(value, dict):
        value = _mapped(value, columns, row.where)
    if ignored:
        value = _without_in_text(value, ignored, seen)
    return replace(row, value=value)


def _mapped(row: dict[str, Any], columns: Mapping[str, str], where: str) -> dict[str, Any]:
    for ours, theirs in columns.items():
        if ours in row and has_column(row, theirs) and ours not in columns.values():
            raise DataError(
                f"{where}: columns takes {ours} from {shown(theirs)}, and the row has {ours} too; set "
                f"ignore_columns: [{ours}] to leave that out."
            )
    return renamed(row, columns)


def _without_in_text(row: Any, ignored: frozenset[str], seen: set[str]) -> Any:
    """Leave keys out of messages that a column holds as JSON text."""
    read = decoded(row)
    if read is row:
        return row
    return {
        key: part if part is row[key] else [without(one, ignored, seen) for one in part] for key, part in read.items()
    }


def without(value: Any, ignored: frozenset[str], seen: set[str]) -> Any:
    """Leave keys out of a row, and of the messages and texts that it holds; `seen` gets those that were there."""
    if not isinstance(value, dict):
        return value
    kept: dict[str, Any] = {}
    for key, part in value.items():
        if key in ignored:
            seen.add(key)
            continue
        spare = ignored - _OF_CALLS if key in _CALLS else ignored
        if key in _WHOLE:
            kept[key] = part
        elif isinstance(part, list) and part and isinstance(part[0], dict):
            kept[key] = [without(one, spare, seen) for one in part]
        elif key in _PARTS or (isinstance(part, dict) and ("role" in part or "from" in part)):
            kept[key] = without(part, spare, seen)
        else:
            kept[key] = part
    return kept


def refuse_unused(keys: Mapping[str, Any] | None, why: str) -> None:
    """Refuse keys of a data set entry, as options of a command, where no file of data is read.

    Raises: DataError.
    """
    given = [f"--{key}" for key, value in (keys or {}).items() if value]
    if given:
        raise DataError(f"{', '.join(given)}: nothing would read {'it' if len(given) == 1 else 'them'}: {why}")
