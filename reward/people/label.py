"""What one person said of one item."""

from dataclasses import dataclass
from typing import Literal

Said = Literal["ok", "tie", "abstain", "skipped", "withdrawn"]
SAID: tuple[Said, ...] = ("ok", "tie", "abstain")  # what counts as a label; the others leave the item open


@dataclass(frozen=True, slots=True)
class Label:
    """What one person said of one item."""

    annotator: str
    item: str
    status: Said
    ranks: list[int] | None
    shown: list[int]
    guidelines: str
    seconds: float
    labelled_at: float = 0.0  # Unix time; set by the store
    number: int = 0  # rises with every label; set by the store
