"""The row that a stage kept of what it trained, as its manifest has it; anything of another shape is left out."""

from dataclasses import dataclass
from typing import Any

KINDS = ("trained", "special", "stop", "cut")
MOST = 100  # pieces of one sequence


@dataclass(frozen=True, slots=True)
class ShownSequence:
    """One sequence, as the macro `sequence` writes it."""

    name: str  # "" if a row has one
    facts: str
    pieces: list[tuple[str, list[str]]]  # classes, and the lines of the text


@dataclass(frozen=True, slots=True)
class Kept:
    """One row."""

    source: str
    layout: str
    sequences: list[ShownSequence]


def kept_row(manifest: dict[str, Any]) -> Kept | None:
    """Return the row that a manifest keeps."""
    found = manifest.get("preview")
    sequences = found.get("sequences") if isinstance(found, dict) else None
    if not isinstance(found, dict) or not isinstance(sequences, dict):
        return None
    shown = []
    for name, pieces in sequences.items():
        if isinstance(pieces, list) and pieces:
            title = "" if len(sequences) == 1 else str(name)
            shown.append(
                ShownSequence(title, "", [_piece(piece) for piece in pieces[:MOST] if isinstance(piece, dict)])
            )
    return Kept(str(found.get("source", "")), str(found.get("layout", "")), shown) if shown else None


def _piece(piece: dict[str, Any]) -> tuple[str, list[str]]:
    return " ".join(kind for kind in KINDS if piece.get(kind) is True), str(piece.get("text", "")).split("\n")
