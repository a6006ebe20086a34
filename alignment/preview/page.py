"""A preview as one HTML page that needs nothing but a browser."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alignment.preview.rows import Part, Row, Stage
from alignment.preview.segments import Piece, parted, pieces
from alignment.preview.wording import facts, summary
from alignment.report.build import fill
from alignment.report.previews import KINDS, ShownSequence
from alignment.report.wording import visible
from alignment.run.files import write_atomic

TEMPLATE = Path(__file__).parent / "preview.html.jinja"
MOST_SKIPPED = 200  # reasons that the page lists


@dataclass(frozen=True, slots=True)
class Card:
    """One row on the page."""

    source: str
    layout: str
    chance: str
    prompt: list[tuple[str, list[str]]]  # pieces that all sequences begin with
    sequences: list[ShownSequence]
    parts: list[Part]
    question: str | None
    read_by: dict[str, str]


def write_page(out: Path, name: str, stage: Stage, rows: Sequence[Row], tokenizer: Any, stops: Sequence[int]) -> None:
    """Write the page; everything that comes from the data is escaped."""
    page = fill(
        TEMPLATE,
        name=name,
        stage=stage.name,
        asked=stage.asked,
        summary=list(summary(stage, len(rows))),
        cards=list(cards(rows, tokenizer, stops)),
        skipped=stage.skipped[:MOST_SKIPPED],
        more_skipped=max(0, len(stage.skipped) - MOST_SKIPPED),
    )
    write_atomic(out, page.encode("utf-8", "replace"))


def cards(rows: Sequence[Row], tokenizer: Any, stops: Sequence[int]) -> Iterator[Card]:
    """Lay out rows."""
    for row in rows:
        many = len(row.sequences) > 1
        prompt, texts = parted([pieces(tokenizer, tokens, stops) for tokens in row.sequences.values()])
        sequences = [
            ShownSequence(name if many else "", facts(tokens, tokenizer, stops), _styled(text))
            for (name, tokens), text in zip(row.sequences.items(), texts, strict=True)
        ]
        parts = [replace(part, text=visible(part.text)) for part in row.parts]
        question = visible(row.question) if row.question is not None else None
        read_by = {visible(name): visible(text) for name, text in row.read_by.items()}
        yield Card(row.source, row.layout, row.chance(), _styled(prompt), sequences, parts, question, read_by)


def _styled(found: Sequence[Piece]) -> list[tuple[str, list[str]]]:
    return [
        (" ".join(kind for kind in KINDS if getattr(piece, kind)), visible(piece.text).split("\n")) for piece in found
    ]
