"""One annotator's label of one item."""

from dataclasses import dataclass
from typing import Literal

LabelStatus = Literal["ok", "tie", "abstain", "skipped", "withdrawn"]
COUNTED: tuple[LabelStatus, ...] = ("ok", "tie", "abstain")  # what counts as a label; the others leave the item open


GOOD, BAD = 1, 2  # in `ranks`, of an item of one answer


def highest_rank(answers: int) -> int:
    """Return the largest rank of an item with so many answers."""
    return max(answers, BAD)


@dataclass(frozen=True, slots=True)
class Label:
    """One annotator's label of one item."""

    annotator: str
    item: str
    status: LabelStatus
    ranks: list[int] | None
    shown: list[int]
    guidelines: str
    seconds: float
    labelled_at: float = 0.0  # Unix time; set by the store
    number: int = 0  # rises with every label; set by the store
