"""Rows, bytes, memory and calls of stage prepare."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from alignment.config.schema import Recipe
from alignment.config.schema.prepare import PrepareRecipe
from alignment.config.schema.scorers import JudgeScorerEntry
from alignment.config.schema.steps.scores import ScoreEntry
from alignment.data.readers import extension
from alignment.data.sources import read_entry
from alignment.planner.calls import Calls, calls_of_judge
from alignment.planner.machine import GIB
from alignment.planner.rows import rows_of
from alignment.planner.settings import Lengths

# Bytes of memory while all rows are read: of the process, of each row, of each byte of the files; docs/prepare.md has
# the measurements.
PROCESS, PER_ROW, PER_BYTE = 100_000_000, 890, 1.0
MIB = 2**20
CHARACTERS = 4  # of a token, for the tokens of judges' prompts


@dataclass(frozen=True, slots=True)
class DataPlan:
    """What a run of stage prepare needs."""

    rows: int | None  # that are read; None: unknown
    most_rows: int | None  # that are written
    bytes: int | None  # of the data files
    memory: int | None  # bytes while the rows are read
    disk: int | None  # bytes, at most, while the run goes on
    calls: Calls | None  # of judges


def plan_data(recipe: PrepareRecipe, rows: int | None, before: Mapping[str, Recipe]) -> DataPlan:
    """Plan a run; unknown is what depends on data that are not on this machine.

    Args:
        rows: rows of the data; None: they are read and counted, or as many as earlier stages write.
        before: recipes of earlier stages, by output_dir.

    Raises: DataError if the data cannot be read; RecipeError if a table of prices cannot be.
    """
    size = _size(recipe)
    if rows is None and size is None:
        rows = rows_of(recipe, before)
    elif rows is None:
        rows = sum(len(source.rows) for entry in recipe.datasets for source in read_entry(entry))
    most = recipe.most_rows(rows)
    if rows is None or size is None:
        return DataPlan(rows, most, size, None, None, None if rows is None else _calls(recipe, rows, 0))
    memory = round(PROCESS + PER_ROW * rows + PER_BYTE * size)
    disk = size * (len(recipe.steps) + 3)  # as read, behind each step, dropped and written
    return DataPlan(rows, most, size, memory, disk, _calls(recipe, rows, size))


def in_words(plan: DataPlan) -> str:
    """Return a plan as one line."""
    if plan.rows is None:
        return "unknown, because the data are not on this machine; give the number of rows with --rows"
    parts = [f"{plan.rows:,} rows are read"]
    if plan.bytes is not None and plan.memory is not None and plan.disk is not None:
        parts[0] += f" from {_bytes(plan.bytes)}"
        parts.append(f"about {_bytes(plan.memory)} of memory to read them")
        parts.append(f"at most {_bytes(plan.disk)} of disk")
    if plan.most_rows is not None:
        parts.append(f"at most {plan.most_rows:,} rows are written")
    return ", ".join(parts)


def _bytes(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.1f} MiB"


def _size(recipe: PrepareRecipe) -> int | None:
    """Return the bytes of the data files; None if some are not here."""
    paths = [Path(entry.path) for entry in recipe.datasets]
    if not all(path.exists() for path in paths):
        return None
    inside = [path.rglob("*") if path.is_dir() else [path] for path in paths]
    return sum(file.stat().st_size for files in inside for file in files if file.is_file() and extension(file))


def _calls(recipe: PrepareRecipe, rows: int, size: int) -> Calls | None:
    """Count the calls of judges; each row that is read is judged once, as if no step dropped it."""
    found = []
    lengths = Lengths(0, round(size / max(rows, 1) / CHARACTERS))
    for step in recipe.steps:
        if isinstance(step, ScoreEntry) and isinstance(step.scorer, JudgeScorerEntry):
            judge = step.scorer.judge.model_copy(update={"asks": "pointwise"})
            found.append(calls_of_judge(judge, rows, 1, lengths))
    return sum(found[1:], found[0]) if found else None
