"""`alignment mix`: one data set of people's and judges' labels, weighted by their estimated accuracy."""

import textwrap
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alignment.config.schema import DatasetEntry
from alignment.data.columns import refuse_unused
from alignment.data.load import load_rankings
from alignment.data.rankings import ranking_to_json
from alignment.data.rows import Ranking
from alignment.data.source_rows import OnBadRow
from alignment.errors import AlignmentError, DataError, printable
from alignment.run.files import write_json, write_jsonl
from reward.audit.items import Reading
from reward.labels.recordings import is_recording, judged, read_recording
from reward.people.anchors import anchored, gold_pairs, on_gold, warnings_of
from reward.people.dawid_skene import SMOOTHING, Estimate, bootstrap_accuracy, estimate, told_apart
from reward.people.mixing import Table, gather, mixed_rows, tabulate

WIDTH = 110  # columns of a warning


def mix(
    sources: list[str],
    output: Path,
    *,
    gold: str | None = None,
    smoothing: float = SMOOTHING,
    bootstrap: int = 200,
    seed: int = 0,
    entry: Mapping[str, Any] | None = None,
    on_bad_row: OnBadRow = "stop",
    tell: Callable[[str], None],
) -> None:
    """Estimate labellers and truths; write the mixed rankings and, beside them, the estimates of each labeller.

    Args:
        gold: people's preferences on some of the pairs, whose truth is then known.

    Raises: DataError if a file cannot be read or no pair has a usable label; AlignmentError if the output is one
        of the inputs.
    """
    if output.suffix != ".jsonl":
        raise AlignmentError(f"--output {output}: rankings are written as JSON lines; give a name that ends in .jsonl.")
    if any(output.resolve() == Path(source).resolve() for source in [*sources, *([gold] if gold else [])]):
        raise AlignmentError(f"--output {output} is one of the files to read; give it another name.")
    rankings, files, skipped = _read(sources, entry or {}, on_bad_row)
    gathered = gather(rankings)
    table = tabulate(gathered)
    if not table.pairs:
        raise DataError(f"{', '.join(sources)}: no pair has a usable label, so there is nothing to mix.")
    without_gold = None
    if gold is not None:
        without_gold = estimate(table.labels, smoothing=smoothing)
        table = anchored(table, gathered, gold, Reading(on_bad_row=on_bad_row))
    found = estimate(table.labels, smoothing=smoothing)
    if not found.converged:
        raise AlignmentError(
            f"the estimate did not converge in {found.steps} steps; use a larger --smoothing than {smoothing:g}."
        )
    intervals = None
    if bootstrap:
        intervals = bootstrap_accuracy(
            table.labels, table.prompts, found, smoothing=smoothing, samples=bootstrap, seed=seed
        )
    labellers = _labellers(table, found, intervals)
    warnings = warnings_of(table, found, without_gold, smoothing=smoothing)
    rows = mixed_rows(gathered, table, found.truth)
    write_jsonl(output, [ranking_to_json(row) for row in rows])
    record = output.with_name(f"{output.stem}.labellers.json")
    statuses = Counter(pair.status for row in rows for pair in row.pairs)
    write_json(
        record,
        {
            "method": "Dawid-Skene, matrices symmetric in the two answers, soft labels as weights of outcomes",
            "files": files,
            "skipped": skipped,
            "smoothing": smoothing,
            "bootstrap": {"samples": bootstrap, "seed": seed, "clustered_by": "prompt"} if bootstrap else None,
            "gold": {"file": gold, "pairs": gold_pairs(table.labels.gold)} if gold else None,
            "warnings": warnings,
            "steps": found.steps,
            "log_posterior": found.log_posterior,
            "share_of_ties": found.ties,
            "prompts": len(rows),
            "pairs": len(table.pairs),
            "statuses": dict(sorted(statuses.items())),
            "labellers": labellers,
        },
    )
    for line in _table(labellers, found):
        tell(line)
    for warning in warnings:
        tell(textwrap.fill(warning, WIDTH, initial_indent="  !!  ", subsequent_indent="      "))
    tell(f"{output}: {len(table.pairs)} pairs of {len(rows)} prompts; {record}")


def _read(
    sources: list[str], keys: Mapping[str, Any], on_bad_row: OnBadRow
) -> tuple[list[Ranking], dict[str, str], list[str]]:
    """Return all labels, the files' hashes, and rows left out; recorded verdicts count as a judge's labels.

    Raises: DataError if a path does not exist: `mix` does not look up paths on the Hub.
    """
    for source in sources:
        if not Path(source).exists():
            raise DataError(f"{source} does not exist. Give files of rankings, or run folders with labels.")
    recordings = [read_recording(Path(source), on_bad_row) for source in sources if is_recording(Path(source))]
    entries = [DatasetEntry(path=source, **keys) for source in sources if not is_recording(Path(source))]
    if not entries:
        refuse_unused(keys, "all of LABELS are recorded verdicts")
    loaded = load_rankings(entries, on_bad_row=on_bad_row, seed=0, agreeing=False)
    recorded = {recording.name: recording.sha256 for recording in recordings}
    rankings = [ranking for one in recordings for ranking in judged(one)] + loaded.rows
    skipped = [reason for one in recordings for reason in one.skipped] + loaded.skipped
    return rankings, {**recorded, **loaded.files}, skipped


def _labellers(table: Table, found: Estimate, intervals: Any) -> list[dict[str, Any]]:
    labels = table.labels
    many = np.bincount(labels.pair, minlength=labels.pairs) > 1
    known = told_apart(labels)
    rows, anchors = [], on_gold(table)
    for number, name in enumerate(table.labellers):
        mine = labels.labeller == number
        right, wrong, tie = (float(value) for value in found.better[number])
        rows.append(
            {
                "labeller": name,
                "labels": int(mine.sum()),
                "shared": int(many[labels.pair[mine]].sum()),  # pairs that others labelled too
                "accuracy": float(found.accuracy[number]),
                "interval": None if intervals is None else [float(bound) for bound in intervals[number]],
                "told_apart": bool(known[number]),
                "on_gold": anchors[number],
                "where_one_is_better": {"right": right, "wrong": wrong, "tie": tie},
                "tie_where_neither_is": float(found.neither[number]),
            }
        )
    return sorted(rows, key=lambda row: -row["accuracy"])


def _table(labellers: list[dict[str, Any]], found: Estimate) -> list[str]:
    names = [printable(row["labeller"]) for row in labellers]
    width = max(len("labeller"), *map(len, names))
    with_gold = any(row["on_gold"] for row in labellers)
    lines = [
        f"{'labeller':<{width}}  labels  shared  accuracy  95 % interval    ties{'  on gold' if with_gold else ''}"
    ]
    for name, row in zip(names, labellers, strict=True):
        bounds = [f"{100 * bound:.1f}" for bound in row["interval"] or ()]
        interval = f"[{', '.join(bounds)}]" if bounds else ""
        anchor = row["on_gold"]
        of_gold = f"  {100 * anchor['accuracy']:.1f} % of {anchor['pairs']}" if anchor else ""
        lines.append(
            f"{name:<{width}}  {row['labels']:>6}  {row['shared']:>6}  {100 * row['accuracy']:>6.1f} %"
            f"  {interval:<14}  {100 * row['where_one_is_better']['tie']:>4.1f} %"
            f"{of_gold}{'' if row['told_apart'] else '  *'}"
        )
    if not all(row["told_apart"] for row in labellers):
        lines.append(
            "* not estimated: nobody, or one other alone, labelled the same pairs; the agreement of two does not tell "
            "who errs. Have three label some of them, or give people's labels of ten with --gold."
        )
    lines.append(f"share of pairs where neither answer is better: {100 * found.ties:.1f} %")
    return lines
