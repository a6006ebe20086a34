"""The files of a run: rows as JSONL or Parquet for each split, and the records of dropped and changed rows."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alignment.config.schema.prepare import PrepareRecipe
from alignment.data.features import Features
from alignment.data.fields import keys_of
from alignment.data.keys import ORIGIN, is_content, is_harmless
from alignment.data.prepare.step import Row, StepError
from alignment.errors import first_line, printable
from alignment.json_lines import line_of
from alignment.prepare.engine import Prepared
from alignment.prepare.store import StoredRows
from alignment.run.files import naming_the_disk, write_json

DROPPED, ACCOUNT = "dropped.jsonl", "prepare.json"
SPLIT = "split"  # the note that names a row's split
Again = Callable[[], Iterator[tuple[str, dict[str, Any]]]]  # reads all rows from the start, each with its split
BATCH = 5_000  # rows of a Parquet row group


def write_rows(recipe: PrepareRecipe, rows: StoredRows) -> tuple[dict[str, str], list[dict[str, Any]] | None]:
    """Write the rows into one file for each split.

    Returns: the files by split, and for JSONL the types of the columns; Parquet has them in its files.

    Raises: StepError if rows have no layout, or Parquet cannot hold them.
    """
    folder = Path(recipe.output_dir)
    columns, splits = _columns(recipe, rows)
    names = {split: f"{split}.{recipe.output_format}" for split in splits}
    beside = {split: folder / f".{name}.partial" for split, name in names.items()}
    with naming_the_disk(folder):
        write = _jsonl if recipe.output_format == "jsonl" else _parquet
        features = write(beside, lambda: ((split_of(row), written(recipe, row, columns)) for row in rows))
        for split, name in names.items():
            os.replace(beside[split], folder / name)
    return names, features


def write_records(run: Path, records: Iterable[Path]) -> None:
    """Write `dropped.jsonl`."""
    beside = run / f".{DROPPED}.partial"
    with naming_the_disk(run):
        with beside.open("wb") as out:
            for path in records:
                with path.open("rb") as file:
                    shutil.copyfileobj(file, out)
        os.replace(beside, run / DROPPED)


def write_account(run: Path, prepared: Prepared) -> None:
    """Write `prepare.json`: what every step dropped, changed and found, by reason."""
    write_json(run / ACCOUNT, {"rows": len(prepared.read), "steps": [asdict(counts) for counts in prepared.counts]})


def split_of(row: Row) -> str:
    """Return the split that a row is written to."""
    return str(row.notes.get(SPLIT, "train"))


def written(recipe: PrepareRecipe, row: Row, columns: Iterable[str]) -> dict[str, Any]:
    """Return a row as its file has it: with its origin, notes, and null for columns that only other rows have."""
    value = {**dict.fromkeys(columns), **row.value}
    value |= {name: row.notes.get(name) for name in recipe.columns_added}
    value[ORIGIN] = row.value.get(ORIGIN) or row.origin
    return value


def _columns(recipe: PrepareRecipe, rows: StoredRows) -> tuple[list[str], list[str]]:
    """Return the columns of all rows, in their order, and the splits."""
    columns: dict[str, None] = {}
    splits: dict[str, None] = {}
    for row in rows:
        columns |= dict.fromkeys(row.value)
        splits[split_of(row)] = None
        if not row.layout:
            raise StepError(
                f"{printable(row.origin)}: no layout reads the row ({keys_of(row.value)}); add a step of kind template"
            )
        for name in recipe.columns_added:
            note = row.notes.get(name)
            if name in row.value or (is_content(note) and not is_harmless(name, note)):
                why = "is a column of the rows" if name in row.value else "would be read as content"
                raise StepError(f"columns_added: {name} {why}; take it out ({printable(row.origin)})")
    return list(columns), list(splits)


def _jsonl(files: dict[str, Path], rows: Again) -> list[dict[str, Any]]:
    features = Features()
    with ExitStack() as stack:
        out = {split: stack.enter_context(path.open("wb")) for split, path in files.items()}
        for split, row in rows():
            out[split].write(line_of(row).encode())
            features.add(split, row)
    return features.declared()


def _parquet(files: dict[str, Path], rows: Again) -> None:
    """Write Parquet: a first pass finds the schema of all rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schemas = {pa.Table.from_pylist(batch).schema for _, batch in _batches(rows())}
        schema = pa.unify_schemas(list(schemas), promote_options="permissive")
        with ExitStack() as stack:
            out = {split: stack.enter_context(pq.ParquetWriter(path, schema)) for split, path in files.items()}
            for split, batch in _batches(rows()):
                out[split].write_table(pa.Table.from_pylist(batch, schema=schema))
    except pa.ArrowException as error:
        raise StepError(
            f"output_format: parquet cannot hold these rows ({first_line(error)}); set output_format: jsonl"
        ) from None


def _batches(rows: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    held: dict[str, list[dict[str, Any]]] = {}
    for split, row in rows:
        batch = held.setdefault(split, [])
        batch.append(row)
        if len(batch) == BATCH:
            yield split, held.pop(split)
    yield from held.items()
