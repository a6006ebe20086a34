"""The rows between two steps, on disk in a hidden folder of the run, from which a killed run resumes."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from alignment.data.prepare.step import Row
from alignment.json_lines import line_of
from alignment.run.files import naming_the_disk, read_json_object, write_json

FOLDER = ".steps"  # hidden: no loader reads it, and no hash of the run's folder covers it


@dataclass
class Counts:
    """What one step did."""

    step: str
    kind: str
    rows_in: int = 0
    rows_out: int = 0
    dropped: dict[str, int] = field(default_factory=dict)  # by reason
    changed: dict[str, int] = field(default_factory=dict)
    findings: dict[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """Return the numbers alone."""
        dropped, changed = sum(self.dropped.values()), sum(self.changed.values())
        return {
            "step": self.step,
            "rows_in": self.rows_in,
            "dropped": dropped,
            "changed": changed,
            "rows_out": self.rows_out,
        }

    def add(self, other: "Counts") -> None:
        """Add the counts of other rows."""
        self.rows_in += other.rows_in
        self.rows_out += other.rows_out
        for mine, theirs in ((self.dropped, other.dropped), (self.changed, other.changed)):
            for reason, count in theirs.items():
                mine[reason] = mine.get(reason, 0) + count


def to_line(row: Row) -> bytes:
    """Return a row as one line of ASCII."""
    envelope = [row.origin, row.layout, dict(row.notes), row.value]
    return json.dumps(envelope, separators=(",", ":")).encode() + b"\n"


def of_line(line: bytes, place: int = -1) -> Row:
    """Return the row of a line."""
    origin, layout, notes, value = json.loads(line)
    return Row(value, origin, layout, notes, place)


@dataclass(frozen=True)
class StoredRows:
    """The rows of a file; each iteration reads it anew."""

    path: Path
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Row]:
        for place, line in enumerate(self.lines()):
            yield of_line(line, place)

    def evenly(self, most: int) -> Iterator[Row]:
        """Yield at most `most` rows, evenly spaced."""
        for place, line in enumerate(self.lines()):
            if self.count <= most or place * most // self.count != (place - 1) * most // self.count:
                yield of_line(line, place)

    def lines(self) -> Iterator[bytes]:
        """Yield the lines of the file."""
        with self.path.open("rb") as file:
            yield from file


class Store:
    """The folder."""

    def __init__(self, run: Path) -> None:
        self.folder = run / FOLDER

    def done(self, number: int, key: str) -> dict[str, Any] | None:
        """Return what the mark of a complete group of steps holds; None if it has another key, or is missing."""
        mark = read_json_object(self.folder / f"{number:03}.json")
        return mark if mark.get("key") == key and self.rows_path(number).is_file() else None

    def rows_path(self, number: int) -> Path:
        """Return the file of the rows behind a step; 0: as they were read."""
        return self.folder / f"{number:03}.rows.jsonl"

    def rows(self, number: int, mark: dict[str, Any]) -> StoredRows:
        """Return the rows behind a step."""
        return StoredRows(self.rows_path(number), int(mark["rows"]))

    def records(self, number: int) -> Path:
        """Return the file of what a step dropped and changed."""
        return self.folder / f"{number:03}.records.jsonl"

    def writing(self, number: int) -> "Writing":
        """Return a writer of the files of a group of steps."""
        return Writing(self, number)

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Writing:
    """Writes rows and records of one group beside their final names; `complete` renames them and writes the mark."""

    def __init__(self, store: Store, number: int) -> None:
        self.store, self.number, self.rows = store, number, 0
        self.names = (store.rows_path(number), store.records(number))

    def __enter__(self) -> "Writing":
        with naming_the_disk(self.store.folder), ExitStack() as files:
            self.store.folder.mkdir(mode=0o700, exist_ok=True)  # rows as they were read may hold personal data
            (self.store.folder / f"{self.number:03}.json").unlink(missing_ok=True)
            self.files: list[IO[bytes]] = [files.enter_context(self._beside(name).open("wb")) for name in self.names]
            self._stack = files.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if error is not None:
            for name in self.names:
                self._beside(name).unlink(missing_ok=True)

    def line(self, line: bytes) -> None:
        """Add a row."""
        with naming_the_disk(self.names[0]):
            self.files[0].write(line)
        self.rows += 1

    def record(self, record: dict[str, Any]) -> None:
        """Add a record of a dropped or changed row."""
        with naming_the_disk(self.names[1]):
            self.files[1].write(line_of(record).encode())

    def complete(self, key: str, counts: list[Counts], **more: Any) -> dict[str, Any]:
        """Rename the files and write the mark; return it."""
        with naming_the_disk(self.store.folder):
            for file, name in zip(self.files, self.names, strict=True):
                file.flush()
                os.fsync(file.fileno())
                os.replace(self._beside(name), name)
        mark = {"key": key, "rows": self.rows, "counts": [asdict(one) for one in counts], **more}
        write_json(self.store.folder / f"{self.number:03}.json", mark)
        return mark

    @staticmethod
    def _beside(name: Path) -> Path:
        return name.with_name(f".{name.name}.partial")
