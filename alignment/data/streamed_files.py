"""The rows of one file from a place on, in memory that does not grow with the file."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from alignment.data.documents import END_OF_TEXT, documents, refuse_json
from alignment.data.readers import RawRow, decoded_line, document_row, extension, json_row, lines_of_json, rows_of
from alignment.data.stored import BOM, ROW_BYTES, Stored
from alignment.errors import DataError

LOOKED_AT = 100  # lines of a text file that may be JSON


@dataclass(slots=True)
class Place:
    """Where the reading of an entry's files goes on."""

    file: int = 0
    offset: int = 0  # bytes of the file, of JSON lines
    line: int = 0  # lines of the file before it, of JSON lines
    row: int = 0  # rows of the file before it
    number: int = 0  # rows of the entry before it, in this pass
    passes: int = 0  # over all files of the entry
    taken: int = 0  # rows of the split's slice before it, in all passes


def rows_from(path: Path, place: Place) -> Iterator[RawRow]:
    """Yield the rows of a file from a place on, which is behind each row when it is yielded.

    JSON lines are read from their byte; of other files the rows before the place are read again and left out.

    Raises: DataError if the file as a whole cannot be read.
    """
    if path.name.endswith(".jsonl"):
        with path.open("rb") as file:
            yield from _json_lines(file, path, place)
        return
    for row in itertools.islice(rows_in(path), place.row, None):
        place.row += 1
        yield row


def rows_in(path: Path) -> Iterator[RawRow]:
    """Yield the rows of a file.

    Raises: DataError if it is a JSON array, which is read whole, or cannot be read.
    """
    kind = extension(path)
    if kind == "txt":
        yield from _texts(path)
        return
    with Stored(path) as stored:
        yield from lines_of_json(stored) if kind == "json" else rows_of(stored, kind)


def sha256_of(path: Path) -> str:
    """Return a file's hash.

    Raises: DataError if it cannot be read, or has no known extension.
    """
    if not extension(path):
        raise DataError(
            f"{path}: streaming reads files of JSON lines, Parquet, CSV and text, by their extension; convert it, or "
            "set streaming: false."
        )
    with Stored(path) as stored:
        return stored.sha256


def _json_lines(file: BinaryIO, path: Path, place: Place) -> Iterator[RawRow]:
    file.seek(place.offset)
    while line := file.readline(ROW_BYTES + 1):
        if len(line) > ROW_BYTES:
            raise DataError(f"{path}:{place.line + 1}: the row has more than {ROW_BYTES:,} bytes.")
        place.line, place.offset = place.line + 1, place.offset + len(line)
        if line.strip():
            place.row += 1
            yield json_row(f"{path}:{place.line}", line.removeprefix(BOM))


def _texts(path: Path) -> Iterator[RawRow]:
    """Yield the documents of a text, parted as in a file that is read whole; the file is read twice."""
    marked = any(line.strip() == END_OF_TEXT for line in _lines(path))
    first = [*itertools.islice((line for line in _lines(path) if line.strip()), LOOKED_AT)]
    refuse_json(first, str(path), begins=True)
    for number, text in documents(_lines(path), marked=marked):
        yield document_row(f"{path}:{number}", text)


def _lines(path: Path) -> Iterable[str]:
    with Stored(path) as stored:
        for number, content in stored.lines():
            yield decoded_line(content, stored, number)
