"""Recognition of a row's layout, and rejection of rows with keys that no layout reads."""

from alignment.config.function_columns import ALL
from alignment.data.fields import BadRow, keys_of
from alignment.data.formats import FORMATS, Format
from alignment.data.keys import UnreadKey, unread
from alignment.data.known import known_remedy
from alignment.data.layouts import Row
from alignment.data.remedies import nearest, refusal, scorer_hint
from alignment.errors import DataError
from alignment.strict_json import shown


def recognise(row: Row, where: str) -> Format:
    """Return the layout of `row`.

    Raises: DataError with the keys found and the known layouts.
    """
    for candidate in FORMATS:
        if candidate.matches(row):
            return candidate
    found = keys_of(row)
    if remedy := known_remedy(row, FORMATS):
        raise DataError(f"{where}: no layout has these keys: {found}. {remedy}.")
    found += nearest(row, FORMATS)
    known = "\n".join(f"  {known.name}: {known.keys}" for known in FORMATS)
    raise DataError(f"{where}: no layout has these keys: {found}. Known layouts and their keys:\n{known}")


def named(name: str) -> Format:
    """Return the layout of that name."""
    for candidate in FORMATS:
        if candidate.name == name:
            return candidate
    raise DataError(f"format: {name} is not known; known are {', '.join(known.name for known in FORMATS)}.")


def refuse_unread(row: Row, fmt: Format, *, chosen: bool, also_read: tuple[str, ...] = ()) -> None:
    """Reject keys that look like content and that the layout does not read.

    Args:
        chosen: the recipe names the layout, so keys that only another layout reads are ignored.
        also_read: keys that the caller reads; `ALL`: every key.
    Raises: UnreadKey.
    """
    if ALL in also_read:
        return
    keys = unread(row, fmt.reads_in(row), (*fmt.harmless_in(row), *also_read))
    if not keys:
        return
    fitting = [other for other in FORMATS if other is not fmt and other.matches(row)]
    for other in fitting:
        if set(keys) <= set(other.reads):
            require_given(row, other)
    if chosen:
        keys = [key for key in keys if not any(key in other.reads for other in fitting)]
    if keys:
        error = refusal(row, keys, fmt, FORMATS, fitting)
        hint = scorer_hint(keys, [name for name in also_read if name not in row])
        raise UnreadKey(f"{error}. {hint}") if hint else error


def require_given(row: Row, fmt: Format) -> None:
    """Reject a row in which a key that the layout needs is null.

    Raises: BadRow with the keys.
    """
    nulls = [key for key in row if row[key] is None and key in fmt.reads]
    if nulls and not fmt.matches({key: value for key, value in row.items() if value is not None}):
        raise BadRow(f"{', '.join(map(shown, nulls))} is null; the layout {fmt.name} needs {fmt.keys}")
