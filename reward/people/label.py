"""One annotator's label of one item."""

from dataclasses import dataclass
from typing import Literal

LabelStatus = Literal["ok", "tie", "abstain", "skipped", "withdrawn"]
COUNTED: tuple[LabelStatus, ...] = ("ok", "tie", "abstain")  # what counts as a label; the others leave the item open


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
