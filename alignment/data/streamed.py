"""Rows of JSON lines, read one after another from a place that can be kept, in memory that does not grow."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from alignment.data.detection import detect
from alignment.data.fields import keys_of
from alignment.data.load import to_demonstration
from alignment.data.readers import RawRow, RawSource, json_row
from alignment.data.rows import Demonstration
from alignment.data.source_rows import Loaded, OnBadRow, read_source
from alignment.data.stored import ROW_BYTES, Stored
from alignment.errors import DataError
from alignment.meter import say_once

if TYPE_CHECKING:
    from alignment.config.schema import DatasetEntry

LOOKED_AT = 1000  # first rows of a file, by which its layout is found
CHUNK = 64  # rows that are read at once


@dataclass(slots=True)
class Place:
    """Where reading goes on."""

    file: int = 0
    offset: int = 0  # bytes of the file
    line: int = 0  # lines of the file before it
    number: int = 0  # rows of all files, of this pass and those before
    passes: int = 0  # over all files


class Lines:
    """The rows of JSON lines files that belong to one of several processes, without an end: the files begin again."""

    def __init__(self, entries: "list[DatasetEntry]", on_bad_row: OnBadRow, *, process: int, processes: int) -> None:
        """Look at each file: its hash, and its layout by the first rows.

        Raises: DataError if a file is not JSON lines, or cannot be read.
        """
        self.on_bad_row, self.process, self.processes = on_bad_row, process, processes
        self.files: list[tuple[Path, str]] = []  # with the layout
        self.hashes: dict[str, str] = {}
        self.skipped = 0
        for entry in entries:
            for path in _files(entry):
                with Stored(path) as stored:
                    first = [row for _, row in zip(range(LOOKED_AT), _rows(stored), strict=False)]
                    self.hashes[str(path)] = stored.sha256
                self.files.append((path, entry.format or _layout(path, first)))
        self.place = Place()

    def chunk(self) -> list[Demonstration]:
        """Return the next rows of this process; none of a chunk may be its.

        Raises: DataError at a bad row where `on_bad_row` is stop.
        """
        path, layout = self.files[self.place.file]
        rows: list[RawRow] = []
        place = self.place
        with path.open("rb") as file:
            file.seek(place.offset)
            for line in _lines(file, path, place.line):
                place.line += 1
                if line.strip():
                    if place.number % self.processes == self.process:
                        rows.append(json_row(f"{path}:{place.line}", line))
                    place.number += 1
                if len(rows) == CHUNK:
                    break
            place.offset = file.tell()
            if not file.peek(1):
                self._next_file()
        if not rows:
            return []
        loaded: Loaded[Demonstration] = Loaded([])
        source = RawSource(str(path), rows, "")
        kept = read_source(source, layout, to_demonstration, self.on_bad_row, loaded, (), tell=False)
        self.skipped += len(loaded.skipped)
        return [each.row for each in kept if each.row is not None]

    def _next_file(self) -> None:
        place = self.place
        place.file, place.offset, place.line = place.file + 1, 0, 0
        if place.file == len(self.files):
            place.file, place.passes = 0, place.passes + 1
            if place.passes == 1:
                say_once(f"the stream has read all {place.number:,} rows, and begins again")


def _files(entry: "DatasetEntry") -> list[Path]:
    """Return an entry's files: one, or those of a folder in the order of their names."""
    path = Path(entry.path).expanduser()
    found = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not found or any(not file.is_file() or file.suffix != ".jsonl" for file in found):
        raise DataError(
            f"{entry.path}: streaming reads files of JSON lines, NAME.jsonl, or a folder of them; write such files, "
            "or set streaming: false."
        )
    return found


def _rows(stored: Stored) -> Iterator[RawRow]:
    for number, line in stored.lines():
        if line is not None and line.strip():
            yield json_row(f"{stored.path}:{number}", line)


def _layout(path: Path, first: list[RawRow]) -> str:
    """Return the layout of a file by its first rows.

    Raises: DataError if there are none, or they have no known layout.
    """
    if not first:
        raise DataError(f"{path} is empty: it holds no rows.")
    found = detect(RawSource(str(path), first, ""))
    if found is None:
        bad = next((row for row in first if row.fault), first[0])
        what = bad.fault or f"it has {keys_of(bad.value) if isinstance(bad.value, dict) else 'no keys'}"
        raise DataError(f'{bad.where}: the row has no known layout ({what}). Give rows as {{"text": ...}}.')
    say_once(f"{path}: layout {found.name}, by its first {len(first):,} rows; streamed")
    return found.name


def _lines(file: BinaryIO, path: Path, before: int) -> Iterator[bytes]:
    """Yield lines, none longer than a row may be."""
    while line := file.readline(ROW_BYTES + 1):
        if len(line) > ROW_BYTES:
            raise DataError(f"{path}:{before + 1}: the row has more than {ROW_BYTES:,} bytes.")
        before += 1
        yield line


def head(entries: "list[DatasetEntry]", on_bad_row: OnBadRow) -> Loaded[Demonstration]:
    """Return the first rows of a stream, for commands that look at data before it is trained."""
    lines = Lines(entries, on_bad_row, process=0, processes=1)
    rows: list[Demonstration] = []
    while len(rows) < LOOKED_AT and not lines.place.passes:
        rows += lines.chunk()
    formats = {str(path): layout for path, layout in lines.files}
    return Loaded(rows, [], formats, lines.hashes, read=len(rows), sources=[row.source for row in rows])
