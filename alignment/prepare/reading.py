"""From a recipe's `datasets:` to rows of any layout, each with its origin."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.config.schema.prepare import PrepareRecipe
from alignment.data.detection import detect
from alignment.data.formats import Format
from alignment.data.layouts import Parsed
from alignment.data.prepare.step import Row, StepError
from alignment.data.readers import RawRow, RawSource
from alignment.data.source_rows import Loaded, read_source
from alignment.data.sources import read_entry, refuse_rejected
from alignment.data.stored import Stored
from alignment.errors import DataError, named_inputs, printable

DATASET = "dataset"  # the note that names the entry of `datasets`


@dataclass
class Read:
    """What was read of a recipe's data."""

    rows: list[Row]
    files: dict[str, str]  # file → sha256, or the Hub data set's fingerprint
    formats: dict[str, str]  # file → layout
    skipped: list[dict[str, Any]] = field(default_factory=list)  # records of rows that could not be read


def read(recipe: PrepareRecipe) -> Read:
    """Read all data of a recipe.

    Raises: DataError, with exit code 2, if a file or a row cannot be read, or the layouts do not fit one output.
    """
    found = Read([], {}, {})
    plain = any(step.READS_COLUMNS for step in recipe.steps)
    with named_inputs(DataError):
        refuse_rejected(recipe.datasets)
        for entry in recipe.datasets:
            before = len(found.rows)
            for source in read_entry(entry):
                rows = _columns(source) if plain else _of_layout(source, entry.format, recipe, found)
                found.rows += (Row(raw.value, raw.where, layout, {DATASET: entry.path}) for raw, layout in rows)
                found.files[source.name] = source.sha256
            if len(found.rows) == before:
                first = f": {found.skipped[0]['origin']}: {found.skipped[0]['reason']}" if found.skipped else ""
                raise DataError(f"{entry.path} gives no usable row{first}.")
        layouts: dict[str, str] = {}
        for row in found.rows:
            layouts.setdefault(row.layout, row.origin)
        if len(layouts) > 1 and not plain:
            places = " and ".join(f"{name} ({printable(origin)})" for name, origin in layouts.items())
            raise DataError(
                f"the data sets have the layouts {places}, and no loader reads both from one file; prepare each "
                "layout in a run of its own."
            )
    return found


def unchanged(files: dict[str, str]) -> bool:
    """Whether files still have these hashes; what is not a file here is taken for a data set on the Hub."""
    for name, sha256 in files.items():
        path = Path(name)
        if path.is_file():
            with Stored(path) as stored:
                if stored.sha256 != sha256:
                    return False
        elif path.exists() or path.is_absolute():
            return False
    return True


def _of_layout(
    source: RawSource, layout: str | None, recipe: PrepareRecipe, found: Read
) -> Iterator[tuple[RawRow, str]]:
    """Yield the rows that a layout reads, once each, though a row may hold several demonstrations."""
    loaded: Loaded[Any] = Loaded([])

    def convert(parsed: Parsed, raw: RawRow, fmt: Format) -> tuple[RawRow, str]:
        return raw, fmt.name

    last: RawRow | None = None
    for kept in read_source(source, layout, convert, recipe.on_bad_row, loaded, ()):
        assert kept.row is not None
        if kept.row[0] is not last:
            last = kept.row[0]
            yield kept.row
    found.formats |= loaded.formats
    for skip in loaded.skipped:
        origin, _, reason = skip.partition(": ")
        found.skipped.append({"step": "read", "action": "dropped", "reason": reason, "origin": origin})


def _columns(source: RawSource) -> Iterator[tuple[RawRow, str]]:
    """Yield the rows of a file for a template: objects, whether a layout reads them or not."""
    try:
        layout = detect(source)
    except DataError:
        layout = None
    for raw in source.rows:
        if raw.fault is not None or not isinstance(raw.value, dict):
            what = raw.fault or f"the row is {json.dumps(raw.value)[:60]}, not an object with named fields"
            raise StepError(printable(f"{raw.where}: {what}. {raw.remedy}."))
        yield raw, layout.name if layout is not None and layout.matches(raw.value) else ""
