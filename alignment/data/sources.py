"""Where rows come from: files by extension, folders of them, and the Hub; every row with the place it stands at."""

import bisect
import csv
import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.errors import DataError

if TYPE_CHECKING:
    from alignment.config.schema import DatasetEntry

EXTENSIONS = ("jsonl", "json", "parquet", "csv", "txt")
BUILDERS = ("json", "parquet", "csv", "text")  # `datasets`' names for files of one kind, with `data_files`
_SPLITS = {
    "train": "train", "training": "train",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
}  # fmt: skip
_SLICE = re.compile(r"^(?P<name>[\w.+-]+?)(?:\[(?P<from>\d*%?):(?P<to>\d*%?)\])?$")
_LIST_COLUMNS = frozenset(
    ("messages", "conversations", "responses", "pairs", "ranks", "scores", "history", "instances", "tools")
)


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


def read_entry(entry: "DatasetEntry") -> list[RawSource]:
    """Read all that a recipe's data set entry names.

    Raises: DataError where there is nothing to read, or a file as a whole cannot be read.
    """
    _split_name(entry.split)
    sources = [_selected(source, entry.columns) for source in _sources(entry)]
    return sources if sources[0].from_hub else _sliced(sources, entry.split)


def _sources(entry: "DatasetEntry") -> list[RawSource]:
    path = Path(entry.path).expanduser()
    if entry.path in BUILDERS and entry.data_files is not None and not path.exists():
        return [read_file(file) for file in _matching(Path(entry.data_dir or "."), entry.data_files, entry.path)]
    if path.is_file():
        return [read_file(path)]
    if path.is_dir():
        if (path / "dataset_info.json").exists() and (path / "state.json").exists():
            return [_read_saved(path)]
        folder = path / entry.data_dir if entry.data_dir else path
        if entry.data_files is not None:
            return [read_file(file) for file in _matching(folder, entry.data_files, entry.path)]
        return [read_file(file) for file in files_of(folder, _split_name(entry.split))]
    if _names_a_file(entry.path):
        raise DataError(f"{entry.path} does not exist. Give a file, a folder of data files, or a Hub id as owner/name.")
    return [read_hub(entry)]


def _selected(source: RawSource, columns: list[str] | None) -> RawSource:
    if columns is None:
        return source
    first = next((row for row in source.rows if isinstance(row.value, dict)), None)
    missing = [column for column in columns if first is not None and column not in first.value]
    if first is not None and missing:
        raise DataError(
            f"{first.where}: columns names {', '.join(missing)}, which the row lacks; it has {', '.join(first.value)}."
        )
    rows = [
        replace(row, value={column: row.value[column] for column in columns if column in row.value})
        if isinstance(row.value, dict)
        else row
        for row in source.rows
    ]
    return replace(source, rows=rows)


def _split_name(split: str) -> str:
    match = _SLICE.match(split)
    if match is None:
        raise DataError(
            f"split: {split} is not understood; write a name, or a slice such as train[:1000] or test[:10%]."
        )
    return match["name"]


def _sliced(sources: list[RawSource], split: str) -> list[RawSource]:
    """Apply a split's slice, `train[10:20]` or `train[:5%]`, to the rows of all files together."""
    match = _SLICE.match(split)
    if match is None or "[" not in split:
        return sources
    total = sum(len(source.rows) for source in sources)
    begin, end = _bound(match["from"], total, 0), _bound(match["to"], total, total)
    kept, offset = [], 0
    for source in sources:
        rows = source.rows[max(0, begin - offset) : max(0, end - offset)]
        offset += len(source.rows)
        if rows:
            kept.append(replace(source, rows=rows))
    if not kept:
        raise DataError(f"split: {split} selects none of {total} rows.")
    return kept


def _bound(text: str, total: int, default: int) -> int:
    if not text:
        return default
    return round(int(text[:-1]) / 100 * total) if text.endswith("%") else int(text)


def _names_a_file(path: str) -> bool:
    return not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path) or path.startswith(".") or extension(Path(path)) != ""


def extension(path: Path) -> str:
    """Return the data extension of a file's name without a trailing .gz, or "" where it is none of ours."""
    name = path.name.lower().removesuffix(".gz")
    found = name.rpartition(".")[2] if "." in name else ""
    return {"ndjson": "jsonl", "text": "txt"}.get(found, found if found in EXTENSIONS else "")


def _matching(folder: Path, patterns: str | list[str], what: str) -> list[Path]:
    files: list[Path] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        whole = Path(pattern)
        found = [whole] if whole.is_file() else sorted(folder.glob(pattern)) if not whole.is_absolute() else []
        if not found:
            raise DataError(f"{what}: data_files {pattern} matches nothing in {folder}.")
        files += [file for file in found if file not in files]
    return files


def files_of(folder: Path, split: str) -> list[Path]:
    """Return the data files in a folder that belong to `split`.

    A name that holds a word such as train, test or validation belongs to that split, as on the Hub; others are
    training data where no file is named so. Text files count only where nothing else is there: beside data they are
    notes and licences.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist.")
    everything = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    files = [file for file in everything if extension(file)]
    files = [file for file in files if extension(file) != "txt"] or files
    wanted = ", ".join(f".{known}" for known in EXTENSIONS)
    if not files:
        kinds = sorted({file.suffix or file.name for file in everything})
        found = f"{len(everything)} files ({', '.join(kinds[:5])})" if everything else "nothing"
        raise DataError(f"{folder} holds no data files: wanted {wanted} (or .gz of these), found {found}.")
    by_split: dict[str, list[Path]] = {}
    for file in files:
        by_split.setdefault(_split_of(file.relative_to(folder)), []).append(file)
    unnamed = by_split.pop("", [])
    if unnamed and "train" not in by_split:
        by_split["train"] = unnamed
    chosen = by_split.get(_SPLITS.get(split, split))
    if not chosen:
        raise DataError(f"{folder} has no split '{split}'; its files' names tell of {', '.join(sorted(by_split))}.")
    return chosen


def _split_of(path: Path) -> str:
    words = [word for part in path.parts for word in re.split(r"[^a-z]+", part.lower())]
    return next((_SPLITS[word] for word in reversed(words) if word in _SPLITS), "")


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
    if not content.lstrip().startswith(b"["):
        try:
            whole = json.loads(content)
        except ValueError:
            yield from _jsonl(content, name)
        else:
            yield RawRow(f"{name}:1", whole)
        return
    text = _decoded(content, name)
    breaks = [match.start() for match in re.finditer("\n", text)]
    decoder, space = json.JSONDecoder(), re.compile(r"[\s]*")
    position = _skip(space, text, text.index("[") + 1)
    while text[position : position + 1] != "]":
        try:
            value, end = decoder.raw_decode(text, position)
        except ValueError as error:
            at = getattr(error, "pos", position)
            message = getattr(error, "msg", str(error))
            raise DataError(f"{name}:{bisect.bisect_left(breaks, at) + 1}: invalid JSON: {message}.") from None
        yield RawRow(f"{name}:{bisect.bisect_left(breaks, position) + 1}", value)
        position = _skip(space, text, end)
        if text[position : position + 1] == ",":
            position = _skip(space, text, position + 1)
        elif text[position : position + 1] != "]":
            line = bisect.bisect_left(breaks, position) + 1
            raise DataError(f"{name}:{line}: invalid JSON: the array is not closed or a comma is missing.")


def _skip(space: re.Pattern[str], text: str, position: int) -> int:
    match = space.match(text, position)
    return match.end() if match else position


def _csv(content: bytes, name: str) -> Iterator[RawRow]:
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
    yield from _numbered(table.to_pylist(), name)


def _numbered(values: Iterable[Any], name: str) -> Iterator[RawRow]:
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
            yield RawRow(f"{name}:{number - len(document)}", {"text": "\n".join(document)})
        document = []


def read_hub(entry: "DatasetEntry") -> RawSource:
    """Read one split of a data set on the Hub."""
    from alignment.data.hub import load_hub_rows

    values, fingerprint = load_hub_rows(entry)
    return RawSource(entry.path, list(_numbered(values, f"{entry.path}[{entry.split}]")), fingerprint, from_hub=True)


def _read_saved(path: Path) -> RawSource:
    from alignment.data.hub import load_saved_rows

    values, fingerprint = load_saved_rows(path)
    return RawSource(str(path), list(_numbered(values, str(path))), fingerprint)
