"""One previewed row in a run's manifest: small enough to keep, whole enough for the report."""

from typing import Any, Protocol, TypeVar

from alignment.data.splits import Split
from alignment.data.template import Template
from alignment.preview.rows import Stage
from alignment.preview.segments import Piece, pieces
from alignment.report.previews import KINDS
from alignment.run.directory import RunDirectory


class _Prepared(Protocol):
    """Prepared rows of one side of a split."""

    skipped: list[str]

    def counts(self) -> dict[str, Any]: ...


Rows = TypeVar("Rows", bound=_Prepared)
LONGEST = 600  # characters of one piece; the middle of a longer one is left out
MOST = 60  # pieces of one sequence


def recorded(stage: Stage, template: Template) -> dict[str, Any]:
    """Return the first row of a stage as its manifest keeps it; {} if there is none."""
    for row in stage.shown(1):
        sequences = {
            name: [_kept(piece) for piece in _some(pieces(template.tokenizer, tokens, template.stop_token_ids))]
            for name, tokens in row.sequences.items()
        }
        found: dict[str, Any] = {"source": row.source, "layout": row.layout, "sequences": sequences}
        return found if row.probability is None else {**found, "probability": row.probability}
    return {}


def record_split(
    run: RunDirectory, split: tuple[Split[Any], Rows, Rows], template: Template, shown: Stage, **fields: Any
) -> tuple[Rows, Rows]:
    """Write to the manifest which rows were read, trained on, held out and left out, and the first one as `shown`.

    Args:
        split: what was read, the training rows and the held-out rows. fields: more fields of the manifest.

    Returns: the training rows and the held-out rows.
    """
    data, train, held_out = split
    counts = {"train": train.counts(), "evaluation": held_out.counts()}
    skipped = data.skipped + train.skipped + held_out.skipped
    run.record(**{**counts, **fields}, data=data.files, skipped=skipped, preview=recorded(shown, template))
    return train, held_out


def _some(found: list[Piece]) -> list[Piece]:
    if len(found) <= MOST:
        return found
    return [*found[: MOST // 2], Piece(f" … ({len(found) - MOST} more pieces) … ", trained=False), *found[-MOST // 2 :]]


def _kept(piece: Piece) -> dict[str, Any]:
    half = LONGEST // 2
    text = piece.text
    if len(text) > LONGEST:
        text = f"{text[:half]} … ({len(text) - LONGEST} more characters) … {text[-half:]}"
    return {"text": text, **{kind: True for kind in KINDS if getattr(piece, kind)}}
