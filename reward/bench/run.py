"""Computes the numbers of `alignment bench` from a reward model and preference files."""

from dataclasses import replace
from typing import Any

from alignment.data.source_rows import OnBadRow
from alignment.errors import DataError
from reward.bench.measures import ScoredRow, best_of_n, pair_measures
from reward.bench.reading import Bench, BenchRow
from reward.bench.sections import section_scores
from reward.models.ensemble import Encoded, Ensemble


def bench(model: Ensemble, read: Bench, *, on_bad_row: OnBadRow = "stop") -> dict[str, Any]:
    """Score every answer and measure each subset, and all together.

    Args:
        on_bad_row: "stop" at the first answer that does not fit the model, "skip" leaves out its prompt; none is cut.

    Returns: what `--json` writes. Raises: DataError if an answer does not fit, or nothing can be measured.
    """
    skipped: list[str] = []
    rows = _scored(model, read.rows, on_bad_row, skipped)
    if not rows:
        reasons = "".join(f"\n  {reason}" for reason in [*skipped, *read.skipped][:3])
        raise DataError(f"{', '.join(read.files)}: no row has two answers that can be compared.{reasons}")
    names = list(dict.fromkeys(one.row.subset for one in rows))
    by_subset = {name: [one for one in rows if one.row.subset == name] for name in names}
    subsets = {name: pair_measures(of) for name, of in by_subset.items()}
    accuracies = [found["accuracy"]["value"] for found in subsets.values() if found["accuracy"]]
    curves = {name: best_of_n(of) for name, of in by_subset.items()}
    return {
        "models": list(model.paths),
        "aggregate": model.aggregate if len(model.members) > 1 else None,
        "files": read.files,
        "subsets": subsets,
        "all": pair_measures(rows),
        "mean_of_subsets": sum(accuracies) / len(accuracies) if accuracies else None,
        "benchmarks": section_scores(rows),
        "best_of_n": {name: curve for name, curve in curves.items() if curve},
        "skipped": read.skipped + skipped,
    }


def _scored(model: Ensemble, rows: list[BenchRow], on_bad_row: OnBadRow, skipped: list[str]) -> list[ScoredRow]:
    kept: list[tuple[BenchRow, list[Encoded]]] = []
    for row in rows:
        of = row.ranking
        if row.published is not None and isinstance(of.prompt, str) and model.reads_messages:
            of = replace(of, prompt=[{"role": "user", "content": of.prompt}])
        try:
            answers = [
                model.encode_answer(of, place, where=f"{of.source}: answer {place + 1}")
                for place in range(len(of.responses))
            ]
        except DataError as error:
            if on_bad_row == "stop":
                raise DataError(f"{str(error).rstrip('.')}. Or leave such rows out with --on_bad_row skip.") from None
            skipped.append(str(error))
            continue
        kept.append((row, answers))
    by_member = model.member_scores([answer for _, answers in kept for answer in answers])
    scores, spread = iter(model.aggregated(by_member)), iter(by_member.std(0, correction=0).tolist())
    return [
        ScoredRow(
            row,
            [next(scores) for _ in answers],
            [len(answer[0]) for answer in answers],
            [next(spread) for _ in answers],
        )
        for row, answers in kept
    ]
