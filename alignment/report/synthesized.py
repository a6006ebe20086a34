"""The page of stage synthesize: what was written and left out, diversity, overlap with the seeds, and some rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.config.schema.synthesize import SynthesizeRecipe
from alignment.report.bars import bars_of, histogram
from alignment.report.build import fill
from alignment.report.wording import visible
from alignment.run.files import write_atomic
from alignment.synthesize.diversity import parts_of
from alignment.synthesize.rows import Row

PAGE = "synthesize.html"
TEMPLATE = Path(__file__).parent / "synthesized.html.jinja"
ROWS, PER_REASON, LONGEST = 12, 3, 600  # rows and left out texts that are shown, and their characters


@dataclass(frozen=True, slots=True)
class Shown:
    """A row on the page."""

    instruction: str
    given: str
    answer: str
    seeds: str


def write_page(
    recipe: SynthesizeRecipe, rows: Sequence[Row], dropped: Sequence[Mapping[str, Any]], results: Mapping[str, Any]
) -> None:
    """Write the page; everything that comes from the data or the writer is escaped."""
    diversity = results["diversity"]
    page = fill(
        TEMPLATE,
        name=recipe.run_name or recipe.output_dir,
        method=recipe.method.kind,
        writer=recipe.writer.label,
        results=results,
        counts=[(key.replace("_", " "), f"{value:,}") for key, value in results.items() if isinstance(value, int)],
        left_out=[(step, bars_of(reasons)) for step, reasons in results["left_out"].items()],
        nearest_seed=histogram(diversity["nearest_seed"]["histogram"]) if "nearest_seed" in diversity else [],
        nearest_other=histogram(diversity["nearest_other"]["histogram"]),
        openings=bars_of(diversity["openings"]),
        varieties=[_variety(name, diversity) for name in ("instructions", "answers")],
        rows=[_shown(row) for row in rows[:ROWS]],
        dropped=list(_examples(dropped)),
    )
    write_atomic(Path(recipe.output_dir) / PAGE, page.encode("utf-8", "replace"))


def _variety(name: str, diversity: Mapping[str, Any]) -> tuple[str, ...]:
    distinct, words = diversity["distinct"][name], diversity["words"][name]
    shares = ["–" if distinct[key] is None else f"{distinct[key]:.2f}" for key in ("distinct_1", "distinct_2")]
    bleu = diversity["self_bleu"][name]
    shares.append("–" if bleu is None else f"{bleu:.2f}")
    lengths = f"{words['mean']:.1f} ({words['p5']} to {words['p95']})"
    return (name.capitalize(), *shares, f"{distinct['unique']:,} of {distinct['n']:,}", lengths)


def _shown(row: Row) -> Shown:
    instruction, answer = parts_of(row)
    seeds = row["provenance"].get("seeds", [])
    return Shown(_cut(instruction), _cut(row.get("input", "")), _cut(answer), ", ".join(map(visible, seeds)))


def _examples(dropped: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, str]]:
    """Yield the first texts of each step and reason."""
    counts: dict[tuple[str, str], int] = {}
    for row in dropped:
        key = (row["step"], row["reason"])
        counts[key] = counts.get(key, 0) + 1
        if counts[key] <= PER_REASON:
            yield {"step": key[0], "reason": key[1], "text": _cut(row["text"])}


def _cut(text: str) -> str:
    return visible(text if len(text) <= LONGEST else f"{text[:LONGEST]}…")
