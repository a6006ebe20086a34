"""Runs the steps of a recipe over rows on disk; what is complete is not done again."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from alignment.config.input_paths import located_inputs
from alignment.config.schema.prepare import READ_NOTES, PrepareRecipe
from alignment.data.prepare.step import Rows, StepError
from alignment.errors import printable
from alignment.meter import ProgressBar, say
from alignment.prepare.applying import Build, Numbered, applier, built
from alignment.prepare.inputs import require_inputs, require_new_columns
from alignment.prepare.reading import Read, unchanged
from alignment.prepare.spreading import mapper, require_ray
from alignment.prepare.store import Counts, Store, StoredRows, to_line
from alignment.run.inputs import content_hash

MOST_REASONS = 5  # in a message


@dataclass(frozen=True)
class Prepared:
    """The rows behind the last step, and what every step did."""

    rows: StoredRows
    read: StoredRows
    counts: list[Counts]
    records: list[Path]
    about: dict[str, Any]  # files and layouts that were read


def build_steps(recipe: PrepareRecipe, builders: Mapping[str, Build] = MappingProxyType({})) -> list[Numbered]:
    """Build all steps, before data are read.

    Args:
        builders: functions for kinds that this package cannot build, as they need the package `reward`.

    Raises: StepError if a package or a file of a step is missing.
    """
    if recipe.engine == "ray":
        require_ray()
    return [built(entry, number, recipe.seed, builders) for number, entry in enumerate(recipe.steps, 1)]


def resumable(recipe: PrepareRecipe) -> bool:
    """Whether the run's folder has the rows of the data as they are now, so that they need not be read."""
    mark = Store(Path(recipe.output_dir)).done(0, _read_key(recipe))
    return not recipe.overwrite and mark is not None and unchanged(mark["files"])


def require(recipe: PrepareRecipe, steps: Sequence[Numbered], read: Read | None) -> None:
    """Have the steps refuse the data before anything is written, up to the first that makes another layout.

    Args:
        read: the data; None if `resumable`.

    Raises: StepError.
    """
    store = Store(Path(recipe.output_dir))
    mark = None if read is not None else store.done(0, _read_key(recipe))
    rows: Rows = store.rows(0, mark) if mark is not None else read.rows if read is not None else []
    noted = {*READ_NOTES}
    for one in steps:
        require_inputs(one, rows, noted)
        one.step.require(rows)
        if one.entry.READS_COLUMNS:
            return
        noted.update(one.entry.notes)
    require_new_columns(recipe.columns_added, rows)


def run_steps(recipe: PrepareRecipe, steps: Sequence[Numbered], read: Read | None) -> Prepared:
    """Run the steps; a run that was killed goes on behind its last complete group of steps.

    Args:
        read: the data; None if `resumable`.

    Raises: StepError if a step drops every row.
    """
    store, key = Store(Path(recipe.output_dir)), _read_key(recipe)
    if read is not None:
        with store.writing(0) as out:
            for row in read.rows:
                out.line(to_line(row))
            for record in read.skipped:
                out.record(record)
            out.complete(key, [], files=read.files, formats=read.formats)
        read.rows.clear()
    about = store.done(0, key)
    assert about is not None
    key = _digest(key, about["files"])
    first = rows = store.rows(0, about)
    counts: list[Counts] = []
    records = [store.records(0)]
    for group in _groups(steps):
        number = group[-1].number
        key = _digest(
            key, [(one.number, one.entry.model_dump(mode="json"), _inputs(one)) for one in group], recipe.seed
        )
        mark = store.done(number, key)
        if mark is None:
            mark = _run(recipe, store, group, rows, key)
        else:
            say(f"{', '.join(one.entry.label for one in group)}: done before")
        rows = store.rows(number, mark)
        counts += [Counts(**one) for one in mark["counts"]]
        records.append(store.records(number))
    return Prepared(rows, first, counts, records, {name: about[name] for name in ("files", "formats")})


def _groups(steps: Sequence[Numbered]) -> Iterator[list[Numbered]]:
    """Join neighbouring steps that look at one row at a time: they share one pass over the rows."""
    for looks, neighbours in itertools.groupby(steps, key=lambda one: one.step.LOOKS):
        group = list(neighbours)
        yield from ([one] for one in group) if looks else (group,)


def _run(recipe: PrepareRecipe, store: Store, group: Sequence[Numbered], rows: StoredRows, key: str) -> dict[str, Any]:
    total = [Counts(one.entry.label, one.entry.kind) for one in group]
    labels = ", ".join(one.entry.label for one in group)
    with store.writing(group[-1].number) as out:
        for one in group:
            if one.step.LOOKS:
                with mapper(recipe.engine, recipe.num_proc) as one.step.mapped:
                    one.step.look(rows)
        with (
            applier(group, recipe.seed, recipe.record_texts, recipe.engine, recipe.num_proc) as apply,
            ProgressBar(labels, "rows", len(rows)) as bar,
        ):
            for block in apply(rows.lines()):
                for line in block.lines:
                    out.line(line)
                for record in block.records:
                    out.record(record)
                for mine, theirs in zip(total, block.counts, strict=True):
                    mine.add(theirs)
                bar.advance(block.counts[0].rows_in)
        for one, counts in zip(group, total, strict=True):
            if one.step.LOOKS:
                counts.findings = one.step.findings()
                if not recipe.record_texts:
                    _forget_texts(counts.findings)
            _require_rows(one, counts)
        return out.complete(key, total)


def _forget_texts(findings: dict[str, Any]) -> None:
    for cluster in findings.get("clusters", ()):
        cluster["texts"] = []
    for conflict in findings.get("label_conflicts", ()):
        conflict.update(dict.fromkeys(conflict, ""))


def _require_rows(one: Numbered, counts: Counts) -> None:
    if counts.rows_in and not counts.rows_out:
        most = sorted(counts.dropped.items(), key=lambda item: -item[1])[:MOST_REASONS]
        reasons = "; ".join(f"{reason} ({count:,})" for reason, count in most)
        raise StepError(
            printable(
                f"step {one.number}, {one.entry.label}, would drop all {counts.rows_in:,} rows: {reasons}. Correct its "
                "keys, or take it out; the steps before it are kept."
            )
        )


def _inputs(one: Numbered) -> dict[str, str]:
    """Return the hashes of the files that a step reads."""
    entry = one.entry
    return {path: content_hash(path) for _, path in located_inputs(type(entry), entry.model_dump(mode="json"))}


def _read_key(recipe: PrepareRecipe) -> str:
    read = [entry.model_dump(mode="json") for entry in recipe.datasets]
    return _digest(read, recipe.on_bad_row, recipe.layout, recipe.reads_columns, recipe.record_texts)


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
