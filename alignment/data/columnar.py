"""Rows of Parquet, Arrow and `datasets`, converted to JSON's types cell by cell.

A cell that cannot be read becomes an `Unreadable`, which is neither text nor a number. So a damaged column affects only
layouts that read it.
"""

import datetime
import decimal
from collections.abc import Iterable, Iterator
from typing import Any

from alignment.data.fields import Unreadable
from alignment.data.stored import FREE_BYTES, LINE_COST, UNFOLDS
from alignment.errors import DataError, first_line
from alignment.strict_json import shown

_BATCH = 64  # rows converted at once; one row may be long
_DATES = (datetime.datetime, datetime.date, datetime.time)
# Errors of libraries for one cell: invalid UTF-8, an unknown time zone, a date outside Python's range.
_OF_A_CELL = (ValueError, KeyError, TypeError, ArithmeticError, RecursionError)


def parquet_rows(source: Any, name: str, size: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file.

    Args:
        source: a path or a file object. size: its bytes on disk.
    Raises: DataError if it is not, is damaged, names a column twice, or unfolds to far more than it is.
    """
    import pyarrow
    import pyarrow.parquet

    count, taken, allowed = 0, 0, max(4 * FREE_BYTES, UNFOLDS * size)
    try:
        file = pyarrow.parquet.ParquetFile(source)
        names = list(file.schema_arrow.names)
        twice = next((column for column in names if names.count(column) > 1), None)
        if twice is not None:
            raise DataError(f"{name}: the column {shown(twice)} stands there twice; take one out.")
        groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
        if sum(group.total_byte_size for group in groups) > allowed:
            raise DataError(f"{name} unfolds to more than {UNFOLDS} times its size, as no text does.")
        for batch in file.iter_batches(batch_size=_BATCH):
            dense = [_dense(column) for column in batch.columns]
            taken += sum(column.nbytes for column in dense) + LINE_COST * batch.num_rows
            if taken > allowed:
                raise DataError(f"{name} unfolds to more than {UNFOLDS} times its size, as no text does.")
            columns = [_cells(column) for column in dense]
            for cells in zip(*columns, strict=True):
                yield dict(zip(names, cells, strict=True))
            count += batch.num_rows
    except (pyarrow.ArrowException, OSError, *_OF_A_CELL) as error:
        where = f" after row {count}" if count else ""
        raise DataError(f"{name} is not a readable Parquet file{where}: {first_line(error)}") from error


def _dense(column: Any) -> Any:
    """Return a column that holds each value as often as it stands there."""
    import pyarrow

    return column.dictionary_decode() if pyarrow.types.is_dictionary(column.type) else column


def _cells(column: Any) -> list[Any]:
    import pyarrow

    try:
        return [plain(value) for value in column.to_pylist()]
    except (pyarrow.ArrowException, *_OF_A_CELL):
        return [_cell(value) for value in column]


def _cell(value: Any) -> Any:
    import pyarrow

    try:
        return plain(value.as_py())
    except (pyarrow.ArrowException, *_OF_A_CELL) as error:
        return Unreadable(f"unreadable ({first_line(error, 100)})")


def plain_rows(values: Iterable[Any], name: str) -> Iterator[Any]:
    """Yield rows of the library `datasets` in JSON's types.

    Raises: DataError naming the row at which the library fails.
    """
    count = 0
    try:
        for count, value in enumerate(values, start=1):  # noqa: B007
            yield plain(value)
    except DataError:
        raise
    except Exception as error:  # the library decodes cells here, and raises what its decoders raise
        raise DataError(f"{name}:{count + 1} cannot be read: {type(error).__name__}: {first_line(error)}") from error


def plain(value: Any) -> Any:
    """Return a value in JSON's types as far as it has some: bytes, and what else has none, stay as they are."""
    if isinstance(value, str | bool | int | float | bytes) or value is None:
        return value
    if isinstance(value, dict):
        return {key if isinstance(key, str) else str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, decimal.Decimal):
        whole = value.is_finite() and value == value.to_integral_value() and value.adjusted() < 100
        return int(value) if whole else float(value)
    if isinstance(value, _DATES):
        return value.isoformat()
    return value
