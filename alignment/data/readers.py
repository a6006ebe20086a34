"""One file to rows, by extension; every row with the line it stands at.

What leaves this module is typed, finite, bounded in size and depth, or a `RawRow` that says why it is not.
"""

import bisect
import csv
import io
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.data.columnar import parquet_rows
from alignment.data.documents import END_OF_TEXT, documents, refuse_columns, refuse_json
from alignment.data.fields import BrokenJson
from alignment.data.rankings import RATINGS
from alignment.data.stored import BOM, ROW_BYTES, Stored
from alignment.errors import DataError, JsonError, NotJson
from alignment.strict_json import BLANKS, decoded, parse, scan, shown

EXTENSIONS = ("jsonl", "json", "parquet", "csv", "txt")
_LIST_COLUMNS = frozenset(
    ("messages", "conversations", "responses", "pairs", "ranks", "scores", "history", "instances", "tools")
)
_NUMBER_COLUMNS = frozenset(("probability", "margin", *itertools.chain.from_iterable(RATINGS)))
_SPACE = re.compile(f"[{BLANKS}]*")
CORRECT, _SAVE = "Correct the row, or set on_bad_row: skip", "Save the file as UTF-8"
_TOO_LONG = f"the row has more than {ROW_BYTES:,} bytes"


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as its file holds it, or why it cannot be read."""

    where: str  # "file:line"
    value: Any
    fault: str | None = None
    remedy: str = CORRECT


@dataclass(frozen=True, slots=True)
class RawSource:
    """One file, or one split of a Hub data set."""

    name: str
    rows: list[RawRow]
    sha256: str
    from_hub: bool = False  # `datasets` has applied the split's slice


def file_of(where: str, files: Collection[str]) -> str:
    """Return the one of `files` that a row's "file:line" names; of a split on the Hub, "owner/name[split]:line"."""
    file = where.rpartition(":")[0]
    return file if file in files else file.rpartition("[")[0]


def extension(path: Path) -> str:
    """Return the data extension of a file's name without a trailing .gz, or "" if it is not of ours."""
    name = path.name.lower().removesuffix(".gz")
    found = name.rpartition(".")[2] if "." in name else ""
    return {"ndjson": "jsonl", "text": "txt"}.get(found, found if found in EXTENSIONS else "")


def read_file(path: Path) -> RawSource:
    """Read one file by its extension.

    Raises: DataError if it cannot be read as a whole.
    """
    kind = extension(path)
    if not kind:
        wanted = ", ".join(f".{known}" for known in EXTENSIONS)
        raise DataError(f"{path} has no known data extension; wanted {wanted}, or .gz of these.")
    with Stored(path) as stored:
        rows = list(rows_of(stored, kind))
        if not rows:
            raise DataError(f"{path} is empty: it holds no rows.")
        return RawSource(str(path), rows, stored.sha256)


def rows_of(stored: Stored, kind: str) -> Iterator[RawRow]:
    """Yield the rows of a file; kind: one of `EXTENSIONS`."""
    return _READERS[kind](stored)


def lines_of_json(stored: Stored) -> Iterator[RawRow]:
    """Yield the rows of a .json file that holds a row a line, one after another.

    Raises: DataError if it is an array, which is read whole.
    """
    return _jsonl(stored, or_array=False)


def _jsonl(stored: Stored, *, or_array: bool = True) -> Iterator[RawRow]:
    for number, line in stored.lines():
        where = f"{stored.path}:{number}"
        if not or_array and line is not None and line.lstrip().startswith(b"["):
            raise DataError(f"{stored.path} is a JSON array, which is read whole; write JSON lines to stream it.")
        if line is None:
            yield RawRow(where, None, _TOO_LONG)
        elif line.strip():
            yield json_row(where, line)


def json_row(where: str, line: bytes) -> RawRow:
    """Return the row of a line of JSON."""
    try:
        return RawRow(where, parse(line))
    except JsonError as error:
        return RawRow(where, None, str(error), _SAVE if _is_encoding(error) else CORRECT)


def _is_encoding(error: JsonError) -> bool:
    """Whether bytes are no UTF-8: then all rows with such a letter are faulty, and not one of them alone."""
    return isinstance(error.__cause__, UnicodeDecodeError)


def _decoded(content: bytes, name: str, line: int = 1) -> str:
    try:
        return decoded(content)
    except JsonError as error:
        if isinstance(error.__cause__, UnicodeDecodeError):
            line += content.count(b"\n", 0, error.__cause__.start)
        raise DataError(f"{name}:{line}: {error}. {_SAVE}.") from None


def _json(stored: Stored) -> Iterator[RawRow]:
    """Read an array of rows; a file that is none is read as one row a line, which many .json files hold."""
    name = str(stored.path)
    content = stored.text_of(stored.whole())
    if content.lstrip().startswith(b"["):
        yield from _json_array(_decoded(content, name), name)
        return
    try:
        text = decoded(content)
        value, fault, end = scan(text, len(text) - len(text.lstrip(BLANKS)))
        alone = not text[end:].strip(BLANKS)
    except JsonError:
        alone = False
    if alone:
        refuse_columns(value, name)
        yield RawRow(f"{name}:1", value, fault)
        return
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            yield json_row(f"{name}:{number}", line.removeprefix(BOM))


def _json_array(text: str, name: str) -> Iterator[RawRow]:
    """Read an array element by element, to know each one's line."""
    breaks = [match.start() for match in re.finditer("\n", text)]

    def line(position: int) -> int:
        return bisect.bisect_left(breaks, position) + 1

    def skip_space(position: int) -> int:
        match = _SPACE.match(text, position)
        return match.end() if match else position

    position = skip_space(text.index("[") + 1)
    closed = text[position : position + 1] == "]"
    while not closed:
        where = f"{name}:{line(position)}"
        try:
            value, fault, end = scan(text, position)
        except NotJson as error:
            where = f"{name}:{line(error.position)}"
            raise DataError(f"{where}: {str(error).partition(': line ')[0]}.") from None
        except JsonError as error:
            raise DataError(f"{where}: {error}.") from None
        yield RawRow(where, value, fault)
        position = skip_space(end)
        closed = text[position : position + 1] == "]"
        if not closed and text[position : position + 1] != ",":
            fault = "the array is not closed or a comma is missing"
            raise DataError(f"{name}:{line(position)}: invalid JSON: {fault}.")
        position = position if closed else skip_space(position + 1)
    after = skip_space(position + 1)
    if after != len(text):
        raise DataError(f"{name}:{line(after)}: invalid JSON: something follows the array.")


def _csv(stored: Stored) -> Iterator[RawRow]:
    name = str(stored.path)
    csv.field_size_limit(ROW_BYTES)
    reader = csv.reader(_lines_of_csv(stored), strict=True)
    header: list[str] = []
    start = 1
    try:
        for cells in reader:
            where, start = f"{name}:{start}", reader.line_num + 1
            if not cells:
                continue
            if not header:
                header = _header(cells, where)
            elif cells == header:
                yield RawRow(where, None, "the header stands here again, as where files were joined; take the line out")
            elif len(cells) != len(header):
                yield RawRow(where, None, f"{len(cells)} cells where the header has {len(header)}")
            elif any("\0" in cell for cell in cells):
                key = next(key for key, cell in zip(header, cells, strict=True) if "\0" in cell)
                yield RawRow(where, None, f"the cell {shown(key)} holds a NUL byte, as no text does")
            else:
                yield RawRow(where, {key: _cell(key, cell) for key, cell in zip(header, cells, strict=True)})
    except csv.Error as error:
        raise DataError(f"{name}:{reader.line_num}: invalid CSV: {error}.") from None


def _lines_of_csv(stored: Stored) -> Iterator[str]:
    r"""Yield lines with their ends: a row of a CSV ends at "\n", "\r\n" or "\r", and at nothing else."""
    for number, line in stored.lines():
        if line is None:
            raise DataError(f"{stored.path}:{number}: {_TOO_LONG}.")
        yield from io.StringIO(_decoded(line, str(stored.path), number) + "\n", newline="")


def _header(cells: list[str], where: str) -> list[str]:
    """Return the columns' names; columns without a name may be several, for spreadsheets leave some behind."""
    if cells[0].lower().startswith("sep="):
        raise DataError(f"{where}: the line {shown(','.join(cells))} is for Excel alone; remove it.")
    for mark in ("\t", ";", "|"):
        if found := next((cell for cell in cells if mark in cell), None):
            raise DataError(
                f"{where}: the columns are parted by {mark!r}, and those of a CSV by commas; save it so."
                + ("" if len(cells) == 1 else f" If {shown(found)} is the name of a column, rename it.")
            )
    twice = next((name for name in cells if name and cells.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{where}: the column {shown(twice)} stands in the header twice; take one out.")
    return cells


def _cell(key: str, cell: str) -> Any:
    """Return a cell as text, save for lists, labels and numbers, which a CSV can only hold as text."""
    if key in _NUMBER_COLUMNS:
        return _number_cell(cell)
    if (key in _LIST_COLUMNS and cell.startswith("[")) or (key == "label" and cell in ("0", "1", "2")):
        try:
            return parse(cell)
        except JsonError as error:
            broken = BrokenJson(cell)
            broken.reason = str(error)
            return broken
    return {"true": True, "false": False}.get(cell.lower(), cell) if key == "label" else cell


def _number_cell(cell: str) -> Any:
    """Return the number that a cell spells, None if it is empty; the layout refuses any other text."""
    if not cell.strip():
        return None
    try:
        value = parse(cell)
    except JsonError:
        return cell
    return value if isinstance(value, int | float) and not isinstance(value, bool) else cell


def _parquet(stored: Stored) -> Iterator[RawRow]:
    size = stored.size
    source = io.BytesIO(stored.whole()) if stored.folded else str(stored.path)
    yield from numbered(parquet_rows(source, str(stored.path), size), str(stored.path))


def numbered(values: Iterable[Any], name: str, *, after: int = 0) -> Iterator[RawRow]:
    """Number rows that stand on no line, from 1; after: rows that come before them."""
    for number, value in enumerate(values, start=after + 1):
        yield RawRow(f"{name}:{number}", _without_nulls(value))


def _without_nulls(value: Any) -> Any:
    """Drop absent fields at any depth: columnar files give every row, message and call every field."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _txt(stored: Stored) -> Iterator[RawRow]:
    """Read documents, parted by lines that hold only <|endoftext|>, else by blank lines."""
    name = str(stored.path)
    lines: list[str] = []
    for number, content in stored.lines():
        lines.append(decoded_line(content, stored, number))
    refuse_json(lines, name)
    for number, text in documents(lines, marked=any(line.strip() == END_OF_TEXT for line in lines)):
        yield document_row(f"{name}:{number}", text)


def decoded_line(content: bytes | None, stored: Stored, number: int) -> str:
    """Return a line of a text file without its end.

    Raises: DataError if it is too long, which `Stored.lines` gives as None, or no UTF-8.
    """
    if content is None:
        raise DataError(f"{stored.path}:{number}: {_TOO_LONG}.")
    return _decoded(content, str(stored.path), number).removesuffix("\r")


def document_row(where: str, text: str) -> RawRow:
    """Return the row of a document of a text file."""
    if "\0" in text:
        return RawRow(where, None, "the text holds a NUL byte, as no text does")
    return RawRow(where, {"text": text}, _TOO_LONG if len(text) > ROW_BYTES else None)


_READERS: dict[str, Callable[[Stored], Iterator[RawRow]]] = {
    "jsonl": _jsonl,
    "json": _json,
    "parquet": _parquet,
    "csv": _csv,
    "txt": _txt,
}
