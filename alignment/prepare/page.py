"""The page of a run: counts by step, examples before and after, lengths, languages, clusters of duplicates."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.config.schema.prepare import PrepareRecipe
from alignment.config.schema.steps.base import On
from alignment.prepare.engine import Prepared
from alignment.prepare.examples import Example, examples
from alignment.prepare.store import Counts, StoredRows
from alignment.prepare.writing import split_of
from alignment.report.bars import Bar
from alignment.report.build import fill
from alignment.report.wording import visible
from alignment.run.files import write_atomic

PAGE = "prepare.html"
TEMPLATE = Path(__file__).parent / "page.html.jinja"
SAMPLE = 20_000  # rows whose lengths and languages are counted, evenly spaced
MOST_REASONS, MOST_CLUSTERS, MOST_TEXTS, LONGEST = 12, 12, 4, 240
SECTIONS = ("clusters", "label_conflicts")  # findings with a section of their own
MEASURED: tuple[On, ...] = ("prompt", "answer")


@dataclass
class StepView:
    """One step on the page."""

    number: int
    name: str
    kind: str
    rows_in: int
    dropped: int
    changed: int
    rows_out: int
    reasons: list[Bar] = field(default_factory=list)
    examples: Mapping[str, list[Example]] = field(default_factory=dict)
    clusters: list[Mapping[str, Any]] = field(default_factory=list)
    more_clusters: int = 0
    conflicts: list[list[tuple[str, str]]] = field(default_factory=list)  # origin and label of rows with the same texts
    facts: list[tuple[str, str]] = field(default_factory=list)


def write_page(recipe: PrepareRecipe, prepared: Prepared) -> None:
    """Write the page; everything that comes from the data is escaped."""
    read, written = _sampled(prepared.read), _sampled(prepared.rows)
    shown = examples(prepared.records, prepared.counts)
    page = fill(
        TEMPLATE,
        name=recipe.run_name or recipe.output_dir,
        read=len(prepared.read),
        written=len(prepared.rows),
        splits=list(written.splits.items()) if written.whole else [],
        layouts=", ".join(sorted(set(prepared.about["formats"].values()))),
        steps=[_step(number, one, shown.get(number, {})) for number, one in enumerate(prepared.counts, 1)],
        lengths=[(on, bars) for on in MEASURED if (bars := _histogram(read.words[on], written.words[on]))],
        languages=_bars(written.languages),
        sampled=[one.count for one in (read, written) if not one.whole],
        texts=recipe.record_texts,
    )
    write_atomic(Path(recipe.output_dir) / PAGE, page.encode("utf-8", "replace"))


@dataclass
class _Sample:
    """What is counted of some rows."""

    count: int = 0
    whole: bool = True
    words: dict[str, Counter[int]] = field(default_factory=lambda: {on: Counter() for on in MEASURED})
    languages: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)


def _sampled(rows: StoredRows) -> _Sample:
    """Count `SAMPLE` rows, evenly spaced."""
    count = len(rows)
    found = _Sample(whole=count <= SAMPLE)
    for row in rows.evenly(SAMPLE):
        found.count += 1
        for on in MEASURED:
            found.words[on][bucket(sum(len(text.split()) for text in row.parts(on)))] += 1
        if "language" in row.notes:
            found.languages[str(row.notes["language"])] += 1
        found.splits[split_of(row)] += 1
    return found


def bucket(words: int) -> int:
    """Return the bucket of a length: 0, 1, 2 for 2 and 3, 3 for 4 to 7, and so on."""
    return words.bit_length()


def bounds(number: int) -> str:
    """Return the lengths of a bucket in words."""
    low, high = (1 << number) >> 1, (1 << number) - 1
    return f"{low:,}" if low >= high else f"{low:,}–{high:,}"


def _histogram(before: Counter[int], after: Counter[int]) -> list[Bar]:
    """Return the shares of rows by length; none where all texts are empty."""
    if not any(number for number in before | after):
        return []
    totals = [sum(before.values()), sum(after.values())]
    numbers = range(min([*before, *after]), max([*before, *after]) + 1)
    most = max(share for number in numbers for share in _shares((before[number], after[number]), totals)) or 1.0
    return [
        Bar(
            bounds(number),
            [before[number], after[number]],
            [100 * share / most for share in _shares((before[number], after[number]), totals)],
        )
        for number in numbers
    ]


def _shares(counts: Sequence[int], totals: Sequence[int]) -> list[float]:
    return [count / total if total else 0.0 for count, total in zip(counts, totals, strict=True)]


def _bars(counts: Mapping[str, int]) -> list[Bar]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    most = ordered[0][1] if ordered else 1
    rest = sum(count for _, count in ordered[MOST_REASONS:])
    shown = [*ordered[:MOST_REASONS], *([(f"{len(ordered) - MOST_REASONS} others", rest)] if rest else [])]
    return [Bar(label, [count], [min(100.0, 100 * count / most)]) for label, count in shown]


def _step(number: int, one: Counts, shown: Mapping[str, list[Example]]) -> StepView:
    reasons = Counter({f"dropped: {reason}": count for reason, count in one.dropped.items()})
    reasons.update({f"changed: {reason}": count for reason, count in one.changed.items()})
    clusters = one.findings.get("clusters", [])
    return StepView(
        number,
        one.step,
        one.kind,
        one.rows_in,
        sum(one.dropped.values()),
        sum(one.changed.values()),
        one.rows_out,
        reasons=_bars(reasons),
        examples=shown,
        clusters=[_cluster(each) for each in clusters[:MOST_CLUSTERS]],
        more_clusters=max(0, len(clusters) - MOST_CLUSTERS),
        conflicts=[_conflict(each) for each in one.findings.get("label_conflicts", [])[:MOST_CLUSTERS]],
        facts=list(_facts({key: value for key, value in one.findings.items() if key not in SECTIONS})),
    )


def _cluster(found: Mapping[str, Any]) -> Mapping[str, Any]:
    texts = [visible(text if len(text) <= LONGEST else f"{text[:LONGEST]}…") for text in found.get("texts", [])]
    return {"size": found.get("size", len(texts)), "kept": found.get("kept", ""), "texts": texts[:MOST_TEXTS]}


def _conflict(found: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(visible(origin), visible(label[:LONGEST])) for origin, label in [*found.items()][:MOST_TEXTS]]


def _facts(found: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, str]]:
    for key, value in found.items():
        label = f"{name} · {key}" if name else key.replace("_", " ")
        if isinstance(value, Mapping):
            yield from _facts(value, label)
        elif isinstance(value, float):
            yield label, f"{value:.4g}"
        else:
            yield label, f"{value:,}" if isinstance(value, int) else str(value)[:LONGEST]
