"""From a recipe's `datasets:` to rows of any layout, each with its origin."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.config.schema.keys import DatasetEntry
from alignment.config.schema.prepare import READ_NOTES, PrepareRecipe
from alignment.data.detection import detect
from alignment.data.formats import Format
from alignment.data.keys import ORIGIN
from alignment.data.layouts import Parsed
from alignment.data.prepare.step import Row
from alignment.data.readers import RawRow, RawSource
from alignment.data.source_rows import Loaded, objects_of, read_source
from alignment.data.sources import read_entry, refuse_rejected
from alignment.data.stored import Stored
from alignment.data.thumbs import PROBABILITY
from alignment.errors import DataError, named_inputs, printable
from alignment.meter import say_once
from alignment.prepare.conversion import converter
from alignment.strict_json import shown

(DATASET,) = READ_NOTES  # names the entry of `datasets`


_PLACE = re.compile(r"[^\n]+:\d+")  # FILE:LINE


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
    with named_inputs(DataError):
        refuse_rejected(recipe.datasets)
        for entry in recipe.datasets:
            before = len(found.rows)
            for source in read_entry(entry):
                found.rows += _rows(source, entry, recipe, found)
            if len(found.rows) == before:
                first = f": {found.skipped[0]['origin']}: {found.skipped[0]['reason']}" if found.skipped else ""
                raise DataError(f"{entry.path} gives no usable row{first}.")
        if not recipe.reads_columns:
            _require_one_layout(found.rows)
    return found


def _require_one_layout(rows: list[Row]) -> None:
    layouts: dict[str, str] = {}
    for row in rows:
        layouts.setdefault(row.layout, row.origin)
    if len(layouts) > 1:
        places = " and ".join(f"{name} ({printable(origin)})" for name, origin in layouts.items())
        raise DataError(
            f"the data sets have the layouts {places}, and no loader reads both from one file. Set layout: messages, "
            "or layout: ranking for answers that are compared, to bring all rows to one."
        )


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


def _rows(source: RawSource, entry: DatasetEntry, recipe: PrepareRecipe, found: Read) -> Iterator[Row]:
    """Yield the rows of one file or split."""
    loaded: Loaded[Any] = Loaded([])
    notes = {DATASET: entry.path}
    if recipe.reads_columns:
        for raw, layout in _columns(source, objects_of(source, recipe.on_bad_row, loaded)):
            _require_origin(raw.value, raw.where)
            yield Row(raw.value, raw.where, layout, notes)
    elif recipe.layout is None:
        last: RawRow | None = None
        for kept in read_source(source, entry.format, _as_it_is, recipe.on_bad_row, loaded, (), tell=False):
            assert kept.row is not None
            raw, layout = kept.row
            if raw is not last:  # a row may hold several demonstrations
                last = raw
                _require_origin(raw.value, raw.where)
                yield Row(raw.value, raw.where, layout, notes)
    else:
        convert = converter(recipe.layout)
        for kept in read_source(source, entry.format, convert, recipe.on_bad_row, loaded, (), tell=False):
            assert kept.row is not None
            _require_origin(kept.row, kept.where)
            labelled = PROBABILITY in kept.row and recipe.layout == "messages"
            yield Row(kept.row, kept.where, "kto" if labelled else recipe.layout, notes)
    for name, layout in loaded.formats.items():
        say_once(printable(f"{name}: layout {layout}"))  # without texts, which may be personal data
    found.formats |= loaded.formats
    found.files |= loaded.files
    for skip in loaded.skipped:
        origin, _, reason = skip.partition(": ")
        found.skipped.append({"step": "read", "action": "dropped", "reason": reason, "origin": origin})


def _require_origin(value: dict[str, Any], where: str) -> None:
    """Refuse a column of the name that the stage writes, unless an earlier run wrote it."""
    found = value.get(ORIGIN)
    if found is not None and not (isinstance(found, str) and _PLACE.fullmatch(found)):
        raise DataError(
            f"{printable(where)}: {ORIGIN} is {shown(found)}, and the stage writes the file and line of each row, "
            f"FILE:LINE, under this name. Rename the column, or set ignore_columns: [{ORIGIN}]."
        )


def _as_it_is(parsed: Parsed, raw: RawRow, fmt: Format) -> tuple[RawRow, str]:
    return raw, fmt.name


def _columns(source: RawSource, rows: list[RawRow]) -> Iterator[tuple[RawRow, str]]:
    """Yield the rows of a file for a template, each with the name of its layout, if it has one."""
    try:
        layout = detect(source)
    except DataError:
        layout = None
    for raw in rows:
        yield raw, layout.name if layout is not None and layout.matches(raw.value) else ""
