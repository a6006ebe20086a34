"""`alignment bench` from the command line: read, score, print, write."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from alignment.data.source_rows import OnBadRow
from alignment.errors import RecipeError
from alignment.ops.ensemble import Aggregate
from alignment.run.files import write_json
from reward.bench.reading import read_bench
from reward.bench.run import bench
from reward.bench.table import tables
from reward.models.ensemble import Ensemble

PLAIN_WIDTH = 140  # columns of tables without a terminal
SKIPPED_SHOWN = 3


def run_bench(
    models: Sequence[str],
    files: Sequence[str],
    *,
    json_out: Path | None,
    column: str | None,
    chat: bool,
    max_samples: int | None,
    on_bad_row: OnBadRow,
    batch_size: int,
    aggregate: str,
    entry: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> None:
    """Measure a reward model and print its tables; the files are read before the model is loaded.

    Args:
        entry: keys of a recipe's data set entry, for every file.
    Raises: AlignmentError if an option, a file or the model cannot be used.
    """
    how = aggregate_of(aggregate)
    read = read_bench(
        files, column=column, chat=chat, on_bad_row=on_bad_row, max_samples=max_samples, entry=entry or {}
    )
    scorer = Ensemble.load(models, batch_size=batch_size, aggregate=how, trust_remote_code=trust_remote_code)
    results = bench(scorer, read, on_bad_row=on_bad_row)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    console.print(tables(results))
    if results["skipped"]:
        first = "".join(f"\n  {reason}" for reason in results["skipped"][:SKIPPED_SHOWN])
        console.print(f"{len(results['skipped'])} rows were left out, the first:{first}", soft_wrap=True, markup=False)
    if json_out is not None:
        write_json(json_out, results)
        console.print(f"All numbers: {json_out}", soft_wrap=True, markup=False)


def aggregate_of(value: str) -> Aggregate:
    """Return the value of `--aggregate`.

    Raises: RecipeError if it is not.
    """
    return _chosen("--aggregate", value, get_args(Aggregate))


def _chosen(option: str, value: str, known: Sequence[str]) -> Any:
    if value not in known:
        raise RecipeError([f"{option}: must be one of {', '.join(known)}, found {value!r}"])
    return value
