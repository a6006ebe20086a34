"""One file to rows, by extension; every row with the line it stands at."""

import bisect
import csv
import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.errors import DataError

EXTENSIONS = ("jsonl", "json", "parquet", "csv", "txt")
_LIST_COLUMNS = frozenset(
    ("messages", "conversations", "responses", "pairs", "ranks", "scores", "history", "instances", "tools")
)
_SPACE = re.compile(r"\s*")
_CELL_LIMIT = 2**31 - 1  # characters; Python's own limit of 131,072 is below a long conversation


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as its file holds it, or why it cannot be read."""

    where: str  # "file:line"
    value: Any
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class RawSource:
    """One file, or one split of a Hub data set."""

    name: str
    rows: list[RawRow]
    sha256: str
    from_hub: bool = False  # `datasets` has applied the split's slice


def extension(path: Path) -> str:
    """Return the data extension of a file's name without a trailing .gz, or "" where it is none of ours."""
    name = path.name.lower().removesuffix(".gz")
    found = name.rpartition(".")[2] if "." in name else ""
    return {"ndjson": "jsonl", "text": "txt"}.get(found, found if found in EXTENSIONS else "")


def read_file(path: Path) -> RawSource:
    """Read one file by its extension."""
    kind = extension(path)
    if not kind:
        wanted = ", ".join(f".{known}" for known in EXTENSIONS)
        raise DataError(f"{path} has no known data extension; wanted {wanted}, or .gz of these.")
    try:
        stored = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    digest = hashlib.sha256(stored).hexdigest()
    if not stored:
        raise DataError(f"{path} is empty: it holds no rows.")
    content = _unzipped(stored, path) if path.name.lower().endswith(".gz") else stored
    readers = {"jsonl": _jsonl, "json": _json, "parquet": _parquet, "csv": _csv, "txt": _txt}
    rows = list(readers[kind](content.removeprefix(b"\xef\xbb\xbf"), str(path)))
    if not rows:
        raise DataError(f"{path} is empty: it holds no rows.")
    return RawSource(str(path), rows, digest)


def _unzipped(stored: bytes, path: Path) -> bytes:
    try:
        return gzip.decompress(stored)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file: {error}.") from error


def _jsonl(content: bytes, name: str) -> Iterator[RawRow]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            yield RawRow(where, json.loads(line.decode("utf-8")))
        except UnicodeDecodeError as error:
            yield RawRow(where, None, _not_utf8(error))
        except ValueError as error:
            yield RawRow(where, None, f"invalid JSON: {error}")
        except RecursionError:
            yield RawRow(where, None, "invalid JSON: nested too deeply")


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"invalid UTF-8: byte 0x{error.object[error.start]:02x} at position {error.start}"


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{name}:{line}: {_not_utf8(error)}. Save the file as UTF-8.") from None


def _json(content: bytes, name: str) -> Iterator[RawRow]:
    """Read an array of rows; a file that is none is read as one row a line, which many .json files hold."""
    if content.lstrip().startswith(b"["):
        yield from _json_array(_decoded(content, name), name)
        return
    try:
        whole = json.loads(content)
    except (ValueError, RecursionError):
        yield from _jsonl(content, name)
    else:
        yield RawRow(f"{name}:1", whole)


def _json_array(text: str, name: str) -> Iterator[RawRow]:
    """Read an array element by element, to know each one's line."""
    breaks = [match.start() for match in re.finditer("\n", text)]
    decoder = json.JSONDecoder()

    def line(position: int) -> int:
        return bisect.bisect_left(breaks, position) + 1

    def skip_space(position: int) -> int:
        match = _SPACE.match(text, position)
        return match.end() if match else position

    position = skip_space(text.index("[") + 1)
    closed = text[position : position + 1] == "]"
    while not closed:
        try:
            value, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise DataError(f"{name}:{line(error.pos)}: invalid JSON: {error.msg}.") from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{name}:{line(position)}: invalid JSON: {error}.") from None
        yield RawRow(f"{name}:{line(position)}", value)
        position = skip_space(end)
        closed = text[position : position + 1] == "]"
        if not closed and text[position : position + 1] != ",":
            fault = "the array is not closed or a comma is missing"
            raise DataError(f"{name}:{line(position)}: invalid JSON: {fault}.")
        position = position if closed else skip_space(position + 1)
    after = skip_space(position + 1)
    if after != len(text):
        raise DataError(f"{name}:{line(after)}: invalid JSON: something follows the array.")


def _csv(content: bytes, name: str) -> Iterator[RawRow]:
    csv.field_size_limit(_CELL_LIMIT)
    reader = csv.reader(io.StringIO(_decoded(content, name), newline=""), strict=True)
    header: list[str] = []
    start = 1
    try:
        for cells in reader:
            where, start = f"{name}:{start}", reader.line_num + 1
            if not cells:
                continue
            if not header:
                header = cells
            elif len(cells) != len(header):
                yield RawRow(where, None, f"{len(cells)} cells where the header has {len(header)}")
            else:
                yield RawRow(where, {key: _cell(key, cell) for key, cell in zip(header, cells, strict=True)})
    except csv.Error as error:
        raise DataError(f"{name}:{reader.line_num}: invalid CSV: {error}.") from None


def _cell(key: str, cell: str) -> Any:
    """Return a cell as text, save for lists of messages and for labels, which a CSV can only hold as text."""
    if (key in _LIST_COLUMNS and cell.startswith("[")) or (key == "label" and cell in ("0", "1", "2")):
        try:
            return json.loads(cell)
        except ValueError:
            return cell
    return {"true": True, "false": False}.get(cell.lower(), cell) if key == "label" else cell


def _parquet(content: bytes, name: str) -> Iterator[RawRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(content))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{name} is not a readable Parquet file: {error}.") from error
    yield from numbered(table.to_pylist(), name)


def numbered(values: Iterable[Any], name: str) -> Iterator[RawRow]:
    """Number rows that stand on no line, from 1."""
    for number, value in enumerate(values, start=1):
        yield RawRow(f"{name}:{number}", _without_nulls(value))


def _without_nulls(value: Any) -> Any:
    """Drop absent fields: columnar files give every row every field."""
    return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value


def _txt(content: bytes, name: str) -> Iterator[RawRow]:
    """Read documents, parted by lines that hold only <|endoftext|>, else by blank lines."""
    lines = _decoded(content, name).replace("\r\n", "\n").split("\n")
    marked = any(line.strip() == "<|endoftext|>" for line in lines)
    document: list[str] = []
    for number, line in enumerate([*lines, "<|endoftext|>" if marked else ""], start=1):
        if line.strip() != ("<|endoftext|>" if marked else ""):
            document.append(line)
            continue
        if any(kept.strip() for kept in document):
            yield RawRow(f"{name}:{number - len(document)}", {"text": "\n".join(document).strip("\n")})
        document = []
