"""The steps applied to rows, in this process or in several."""

import importlib
import importlib.util
import itertools
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Protocol

from alignment.config.schema.steps import AnyStep
from alignment.data.prepare.step import Change, Drop, Row, Step
from alignment.prepare.spreading import Engine, mapper
from alignment.prepare.store import Counts, of_line, to_line

BLOCK = 1_000  # rows that a process gets at once


class Build(Protocol):
    """The function `build` of a kind's module."""

    def __call__(self, entry: Any, seed: int) -> Step:
        """Return the step of an entry; `seed` differs for each step of a recipe."""
        ...


@dataclass(frozen=True)
class Numbered:
    """A step with its place in the recipe, from 1."""

    number: int
    entry: AnyStep
    step: Step


@dataclass
class Block:
    """What steps made of some rows."""

    lines: list[bytes] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    counts: list[Counts] = field(default_factory=list)


def built(entry: AnyStep, number: int, seed: int, builders: Mapping[str, Build]) -> Numbered:
    """Build a step: by the function of its kind in `builders`, else by `build` of its module."""
    build: Build = builders.get(entry.kind) or importlib.import_module(_module(entry)).build
    return Numbered(number, entry, build(entry, seed * 1_000 + number))


def has_module(entry: AnyStep) -> bool:
    """Whether this package builds the step; other kinds need a builder of the package `reward`."""
    return importlib.util.find_spec(_module(entry)) is not None


def _module(entry: AnyStep) -> str:
    return f"alignment.data.prepare.{entry.kind}"


def apply_all(steps: Sequence[Numbered], lines: Iterable[tuple[int, bytes]], texts: bool) -> Block:
    """Apply steps to rows, one row after the other.

    Args:
        lines: rows as `store.to_line` writes them, with their places. texts: records hold the texts of rows.
    """
    block = Block(counts=[Counts(one.entry.label, one.entry.kind) for one in steps])
    for place, line in lines:
        row = of_line(line, place)
        left = [row]
        for one, counts in zip(steps, block.counts, strict=True):
            left = [out for each in left for out in _apply(one, each, counts, block.records, texts)]
        block.lines += (line if each is row else to_line(each) for each in left)
    return block


def _apply(one: Numbered, row: Row, counts: Counts, records: list[dict[str, Any]], texts: bool) -> Sequence[Row]:
    counts.rows_in += 1
    outcome = one.step.apply(row)
    if isinstance(outcome, Row):
        counts.rows_out += 1
        return (outcome,)
    record = {"step": one.entry.label, "number": one.number, "origin": row.origin, "reason": outcome.reason}
    record |= {"detail": outcome.detail} if outcome.detail else {}
    shows = texts and not outcome.private
    if isinstance(outcome, Drop):
        counts.dropped[outcome.reason] = counts.dropped.get(outcome.reason, 0) + 1
        records.append({**record, "action": "dropped", **({"row": row.value} if shows else {})})
        return ()
    counts.changed[outcome.reason] = counts.changed.get(outcome.reason, 0) + 1
    counts.rows_out += len(outcome.rows)
    records.append({**record, "action": "changed", **(_difference(row, outcome) if shows else {})})
    return outcome.rows


def _difference(row: Row, change: Change) -> dict[str, Any]:
    """Return the texts that differ; whole rows where their number or layout does."""
    if len(change.rows) == 1 and change.rows[0].layout == row.layout:
        pairs = list(zip(row.texts, change.rows[0].texts, strict=False))
        different = [(old.text, new.text) for old, new in pairs if old.text != new.text and not old.repeats]
        if len(row.texts) == len(change.rows[0].texts) and different:
            return {"before": [old for old, _ in different], "after": [new for _, new in different]}
    return {"before": row.value, "after": [new.value for new in change.rows]}


@contextmanager
def applier(steps: Sequence[Numbered], seed: int, texts: bool, engine: Engine, processes: int) -> Iterator[Any]:
    """Give a function from lines to an iterator of blocks, in the order of the lines."""

    def blocks(lines: Iterable[bytes]) -> Iterator[list[tuple[int, bytes]]]:
        numbered = enumerate(lines)
        while block := list(itertools.islice(numbered, BLOCK)):
            yield block

    if (engine == "local" and processes == 1) or any(one.step.LOOKS for one in steps):
        yield lambda lines: (apply_all(steps, block, texts) for block in blocks(lines))
        return
    made = pickle.dumps(([(one.number, one.entry) for one in steps], seed))
    with mapper(engine, processes) as mapped:
        yield lambda lines: mapped(partial(_work, made=made, texts=texts), blocks(lines))


def _work(block: list[tuple[int, bytes]], made: bytes, texts: bool) -> Block:
    return apply_all(_steps(made), block, texts)


@lru_cache(maxsize=1)
def _steps(made: bytes) -> list[Numbered]:
    """Build steps once in each process."""
    entries, seed = pickle.loads(made)
    return [built(entry, number, seed, {}) for number, entry in entries]
