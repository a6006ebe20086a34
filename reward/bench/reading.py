"""Reads preference files with the subset of each row and the gold scores of its answers, if it has them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from alignment.config.schema import DatasetEntry
from alignment.data.formats import Format
from alignment.data.layouts import Parsed
from alignment.data.load import load, ranking
from alignment.data.readers import RawRow
from alignment.data.rows import Ranking
from alignment.data.source_rows import OnBadRow
from alignment.errors import DataError
from reward.bench.rewardbench import PRIOR_SETS, Published, published

NO_KEYS: Mapping[str, Any] = MappingProxyType({})
SUBSET_COLUMNS = ("subset", "section")  # the first that a row has


@dataclass(frozen=True, slots=True)
class BenchRow:
    """Answers to one prompt, with their labels and gold scores."""

    ranking: Ranking
    subset: str
    gold: list[float] | None = None  # of each answer, if the row has `scores`
    published: Published | None = None  # what the row is in RewardBench or RewardBench 2


@dataclass
class Bench:
    """All rows of all files."""

    rows: list[BenchRow] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)  # file → sha256
    skipped: list[str] = field(default_factory=list)  # "file:line: reason"


def read_bench(
    files: Sequence[str],
    *,
    column: str | None = None,
    chat: bool = False,
    on_bad_row: OnBadRow = "stop",
    max_samples: int | None = None,
    entry: Mapping[str, Any] = NO_KEYS,
) -> Bench:
    """Read preference files of any known layout.

    Args:
        files: paths or Hub ids. column: what names a row's subset; None: `subset` or `section`, else the file.
        chat: a prompt that is text is a user's message. max_samples: rows of each file, drawn at random, once for all.
        entry: keys of a recipe's data set entry, for every file.

    Raises: DataError if nothing can be compared, or a row lacks the requested column.
    """
    found = Bench()
    also_read = () if column is None else (column,)
    names = [Path(file).name for file in files]
    for file, short in zip(files, names, strict=True):
        name = short if names.count(short) == 1 else file

        def convert(parsed: Parsed, raw: RawRow, fmt: Format, name: str = name) -> BenchRow:
            read = ranking(parsed, raw, fmt)
            if chat and isinstance(read.prompt, str):
                read = replace(read, prompt=[{"role": "user", "content": read.prompt}])
            gold, of = _gold(raw.value, len(read.responses)), published(raw.value, raw.where, len(read.responses))
            return BenchRow(read, _subset(raw, column, name, of), gold, of)

        loaded = load([_entry(file, entry)], convert, on_bad_row, 0, max_samples, agreeing=_own, also_read=also_read)
        found.rows += loaded.rows
        found.files |= loaded.files
        found.skipped += loaded.skipped
    return found


def _own(row: BenchRow) -> bool:
    """Whether a row is of no published benchmark; in those, opposite opinions of people are scored too."""
    return row.published is None


def _entry(file: str, keys: Mapping[str, Any]) -> DatasetEntry:
    """A file, a folder, or a Hub id with its split behind a colon."""
    path, colon, split = file.rpartition(":")
    if colon and not Path(file).exists():
        return DatasetEntry(path=path, split=split, **keys)
    return DatasetEntry(path=file, **keys)


def _subset(raw: RawRow, column: str | None, name: str, of: Published | None) -> str:
    if column is not None:
        if raw.value.get(column) is None:
            raise DataError(f"{raw.where}: has no column {column}, named by --subset; it has {', '.join(raw.value)}.")
        return str(raw.value[column])
    if of is not None and of.section == PRIOR_SETS:  # their column `subset` names parts of a set
        return of.subset
    return next((str(raw.value[key]) for key in SUBSET_COLUMNS if raw.value.get(key) is not None), name)


def _gold(row: dict[str, Any], answers: int) -> list[float] | None:
    scores = row.get("scores")
    if not isinstance(scores, list) or len(scores) != answers:
        return None
    numbers = [isinstance(score, int | float) and not isinstance(score, bool) for score in scores]
    return [float(score) for score in scores] if all(numbers) and all(map(math.isfinite, scores)) else None
