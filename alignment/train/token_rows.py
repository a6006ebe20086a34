"""Tokenised rows in compact memory, made by one process or by several."""

import multiprocessing
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Protocol, TypeVar, overload

import numpy as np
import pyarrow as pa
from datasets import Dataset

from alignment.data.answer_tokens import AnswerTokens
from alignment.data.template import Template

PART = 1000  # rows that a process tokenises before it gives them back
Given = TypeVar("Given")
Row = dict[str, Any]


class TokenRows(Sequence[Row]):
    """Rows of token ids and numbers. An id takes 4 bytes here; in a list it takes 8, and its number 28 more."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        """Take over rows, all with the same keys: lists of ids, or numbers."""
        self._ids: dict[str, array[int]] = {}
        self._ends: dict[str, array[int]] = {}  # of each row's ids, behind a 0
        self._numbers: dict[str, array[float]] = {}
        self._length = 0
        self.extend(rows)

    def append(self, row: Row) -> None:
        """Add a row."""
        for key, value in row.items():
            if isinstance(value, list):
                ids = self._ids.setdefault(key, array("i"))
                ids.extend(value)
                self._ends.setdefault(key, array("q", [0])).append(len(ids))
            else:
                self._numbers.setdefault(key, array("d")).append(value)
        self._length += 1

    def extend(self, rows: Iterable[Row]) -> None:
        """Add rows."""
        if not isinstance(rows, TokenRows):
            for row in rows:
                self.append(row)
            return
        for key, ids in rows._ids.items():
            mine = self._ids.setdefault(key, array("i"))
            ends = self._ends.setdefault(key, array("q", [0]))
            ends.extend(len(mine) + end for end in rows._ends[key][1:])
            mine.extend(ids)
        for key, numbers in rows._numbers.items():
            self._numbers.setdefault(key, array("d")).extend(numbers)
        self._length += len(rows)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._length

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> "TokenRows": ...
    def __getitem__(self, place: int | slice) -> "Row | TokenRows":
        """Return a row with lists of ids, as it was added."""
        if isinstance(place, slice):
            return TokenRows(self[one] for one in range(*place.indices(self._length)))
        place = range(self._length)[place]
        row: Row = {key: numbers[place] for key, numbers in self._numbers.items()}
        for key, ends in self._ends.items():
            row[key] = self._ids[key][ends[place] : ends[place + 1]].tolist()
        return row

    def __eq__(self, other: object) -> bool:
        """Compare with any sequence of rows."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def dataset(self) -> Dataset:
        """Return the rows as a data set: ids are int64, numbers float32."""
        return Dataset(pa.Table.from_batches([self._batch(begin) for begin in range(0, len(self), PART)]))

    def _batch(self, begin: int) -> pa.RecordBatch:
        columns: dict[str, pa.Array] = {}
        for key, ids in self._ids.items():
            ends = np.array(self._ends[key][begin : begin + PART + 1])
            values = np.array(ids[ends[0] : ends[-1]], dtype=np.int64)
            columns[key] = pa.ListArray.from_arrays(pa.array((ends - ends[0]).astype(np.int32)), pa.array(values))
        for key, numbers in self._numbers.items():
            columns[key] = pa.array(np.array(numbers[begin : begin + PART], dtype=np.float32))
        return pa.RecordBatch.from_pydict(columns)


class Part(Protocol):
    """What is made of some rows."""

    def add(self, other: Any) -> None:
        """Add what was made of the rows that follow."""


Made = TypeVar("Made", bound=Part)


def in_parts(
    work: Callable[[Sequence[Given], AnswerTokens], Made],
    rows: Sequence[Given],
    template: Template,
    num_proc: int | None,
) -> Made:
    """Tokenise rows, in as many processes as `num_proc` where each gets a part that is worth its start.

    Args:
        work: a function, or a `functools.partial` of one, that a process finds by its name.
    Raises: DataError at the first row that `work` refuses.
    """
    tokens = AnswerTokens(template)
    processes = min(num_proc or 1, len(rows) // PART)
    if processes < 2:
        made = work(rows, tokens)
    else:
        made = work([], tokens)
        for part, counts in _from_processes(work, rows, template, processes):
            made.add(part)
            tokens.add(counts)
    tokens.tell()
    return made


def as_dataset(rows: Sequence[Row]) -> Dataset:
    """Return tokenised rows as a data set for a trainer."""
    return (rows if isinstance(rows, TokenRows) else TokenRows(rows)).dataset()


def _from_processes(
    work: Callable[[Sequence[Given], AnswerTokens], Made], rows: Sequence[Given], template: Template, processes: int
) -> Iterator[tuple[Made, Any]]:
    parts = (rows[begin : begin + PART] for begin in range(0, len(rows), PART))
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may never end
    with ProcessPoolExecutor(processes, context, _begin, (work, template)) as pool:
        yield from pool.map(_tokenise, parts)


_task: list[Any] = []  # in a process of the pool: what it does, and the template


def _begin(work: Any, template: Template) -> None:
    _task[:] = [work, template]


def _tokenise(rows: Sequence[Any]) -> tuple[Any, Any]:
    work, template = _task
    tokens = AnswerTokens(template)
    return work(rows, tokens), tokens.counts()
