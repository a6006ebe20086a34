"""Rows of data sets, read one after another from a place that can be kept, in memory that does not grow."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from alignment.data.detection import detect
from alignment.data.fields import keys_of
from alignment.data.load import shares_of, to_demonstration
from alignment.data.overlaps import require_different
from alignment.data.readers import RawRow, RawSource, numbered
from alignment.data.rows import Demonstration
from alignment.data.source_rows import Loaded, OnBadRow, read_source
from alignment.data.sources import Located, bounds, in_our_columns, locate, refuse_rejected, require_columns
from alignment.data.streamed_files import Place, rows_from, sha256_of
from alignment.errors import DataError
from alignment.meter import say_once

if TYPE_CHECKING:
    from alignment.config.schema import DatasetEntry

LOOKED_AT = 1000  # first rows of a file, by which its layout is found
CHUNK = 64  # rows that are read at once


@dataclass(frozen=True, slots=True)
class Part:
    """A file, or a split that `datasets` reads."""

    name: str
    sha256: str  # or the data set's fingerprint or revision
    layout: str
    rows: Callable[[Place], Iterator[RawRow]]  # those from a place on, which moves behind each row that is yielded


class Entry:
    """The rows of one data set that belong to one of several processes, without an end: they begin again."""

    def __init__(self, entry: "DatasetEntry", on_bad_row: OnBadRow, *, process: int, processes: int) -> None:
        """Look at each part: its hash, and its layout by the first rows."""
        self.entry, self.on_bad_row, self.process, self.processes = entry, on_bad_row, process, processes
        self.begin, self.end = bounds(entry.split)
        self.skipped = 0
        self.place = Place()
        self._rows: Iterator[RawRow] | None = None
        self.parts = [*_parts(entry)]

    def restore(self, place: Place) -> None:
        """Go on at a place."""
        self.place, self._rows = place, None

    def chunk(self) -> list[Demonstration]:
        """Return the next rows of this process; none of a chunk may be its.

        Raises: DataError at a bad row where `on_bad_row` is stop, and if the split's slice has no rows.
        """
        part = self.parts[self.place.file]
        rows = self._raw(part)
        if not rows:
            return []
        loaded: Loaded[Demonstration] = Loaded([])
        source = RawSource(part.name, rows, "")
        kept = read_source(source, part.layout, to_demonstration, self.on_bad_row, loaded, (), tell=False)
        if loaded.skipped and not self.skipped:
            say_once(f"left out, and all further bad rows: {loaded.skipped[0]}")
        self.skipped += len(loaded.skipped)
        return [each.row for each in kept if each.row is not None]

    def _raw(self, part: Part) -> list[RawRow]:
        place = self.place
        rows: list[RawRow] = []
        if self._rows is None:
            self._rows = part.rows(place)
        for raw in self._rows:
            if self.end is not None and place.number >= self.end:
                self._end_pass()
                return rows
            place.number += 1
            if place.number > self.begin:
                if place.taken % self.processes == self.process:
                    rows.append(in_our_columns(raw, self.entry, set()))
                place.taken += 1
            if len(rows) == CHUNK:
                return rows
        self._rows = None
        place.file, place.offset, place.line, place.row = place.file + 1, 0, 0, 0
        if place.file == len(self.parts):
            self._end_pass()
        return rows

    def _end_pass(self) -> None:
        place = self.place
        if not place.taken:
            raise DataError(f"{self.entry.path}: split: {self.entry.split} selects none of {place.number} rows.")
        self.restore(Place(passes=place.passes + 1, taken=place.taken))


class Corpus:
    """The rows of a recipe's data sets that belong to one of several processes, without an end.

    Without fractions each data set is read to its end before the next, and all begin again. With fractions the next
    rows are those of the data set that is furthest behind its share.
    """

    def __init__(self, entries: "list[DatasetEntry]", on_bad_row: OnBadRow, *, process: int, processes: int) -> None:
        """Look at each file.

        Raises: DataError if a file cannot be streamed or read.
        """
        refuse_rejected(entries)
        self._shares = shares_of([entry.fraction for entry in entries])
        self.entries = [Entry(entry, on_bad_row, process=process, processes=processes) for entry in entries]

    @property
    def parts(self) -> list[Part]:
        """The parts of all data sets."""
        return [part for entry in self.entries for part in entry.parts]

    @property
    def hashes(self) -> dict[str, str]:
        """The hash of each part by its name."""
        return {part.name: part.sha256 for part in self.parts}

    @property
    def passes(self) -> int:
        """How often all rows were read."""
        return min(entry.place.passes for entry in self.entries)

    @property
    def taken(self) -> int:
        """Rows that were read, of all processes and passes."""
        return sum(entry.place.taken for entry in self.entries)

    @property
    def skipped(self) -> int:
        """Bad rows that were left out."""
        return sum(entry.skipped for entry in self.entries)

    def chunk(self) -> list[Demonstration]:
        """Return the next rows of this process, as `Entry.chunk` does."""
        if self._shares is None:
            read = [float(entry.place.passes) for entry in self.entries]
        else:
            read = [entry.place.taken / share for entry, share in zip(self.entries, self._shares, strict=True)]
        return self.entries[read.index(min(read))].chunk()

    def state(self) -> list[dict[str, int]]:
        """Return where reading goes on, in types that `torch.load(weights_only=True)` reads."""
        return [{**asdict(entry.place), "skipped": entry.skipped} for entry in self.entries]

    def restore(self, state: list[dict[str, int]]) -> None:
        """Restore what `state` returned."""
        for entry, kept in zip(self.entries, state, strict=True):
            place = dict(kept)
            entry.skipped = place.pop("skipped")
            entry.restore(Place(**place))


def _parts(entry: "DatasetEntry") -> Iterator[Part]:
    """Yield the parts of a data set.

    Raises: DataError if one cannot be streamed, or two files have the same content.
    """
    located = locate(entry)
    found: list[RawSource] = []
    for name, sha256, rows in _streams(entry, located):
        first = RawSource(name, [*itertools.islice(rows(Place()), LOOKED_AT)], sha256)
        if not first.rows:
            raise DataError(f"{name} is empty: it holds no rows.")
        require_columns(first, entry)
        seen: set[str] = set()
        ours = RawSource(name, [in_our_columns(row, entry, seen) for row in first.rows], sha256)
        if unseen := sorted({*entry.ignore_columns} - seen):
            say_once(f"{name}: the first {len(first.rows):,} rows have no {', '.join(unseen)} to ignore")
        found.append(first)
        yield Part(name, sha256, entry.format or _layout(ours), rows)
    if located.found:
        require_different(found)


Stream = tuple[str, str, Callable[[Place], Iterator[RawRow]]]


def _streams(entry: "DatasetEntry", located: Located) -> Iterator[Stream]:
    """Yield name, hash and rows of each part."""
    from alignment.data.hub import stream_hub_rows, stream_saved_rows

    if located.on_hub:
        read, revision = stream_hub_rows(entry)
        yield entry.path, revision, partial(_counted, read, f"{entry.path}[{entry.split}]")
    elif located.saved is not None:
        read, fingerprint = stream_saved_rows(located.saved)
        yield str(located.saved), fingerprint, partial(_counted, read, str(located.saved))
    for file in located.files:
        yield str(file), sha256_of(file), partial(rows_from, file)


def _counted(read: Callable[[int], Iterator[Any]], name: str, place: Place) -> Iterator[RawRow]:
    """Yield the rows of `datasets` from a place on."""
    for row in numbered(read(place.row), name, after=place.row):
        place.row += 1
        yield row


def _layout(first: RawSource) -> str:
    """Return the layout of a file by its first rows.

    Raises: DataError if they have no known layout.
    """
    found = detect(first)
    if found is None:
        bad = next((row for row in first.rows if row.fault), first.rows[0])
        what = bad.fault or f"it has {keys_of(bad.value) if isinstance(bad.value, dict) else 'no keys'}"
        raise DataError(f'{bad.where}: the row has no known layout ({what}). Give rows as {{"text": ...}}.')
    say_once(f"{first.name}: layout {found.name}, by its first {len(first.rows):,} rows; streamed")
    return found.name


def head(entries: "list[DatasetEntry]", on_bad_row: OnBadRow) -> Loaded[Demonstration]:
    """Return the first rows of a stream, for commands that look at data before it is trained."""
    corpus = Corpus(entries, on_bad_row, process=0, processes=1)
    rows: list[Demonstration] = []
    while len(rows) < LOOKED_AT and not corpus.passes:
        rows += corpus.chunk()
    formats = {part.name: part.layout for part in corpus.parts}
    return Loaded(rows, [], formats, corpus.hashes, read=len(rows), sources=[row.source for row in rows])
