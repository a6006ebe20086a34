"""What all steps have in common."""

from typing import ClassVar, Literal

from alignment.config.schema.kinds import Entry
from alignment.config.schema.parts import Words

On = Literal["prompt", "answer", "both", "all"]  # "both": prompt and answer; "all": also system, reasoning, rejected


class AnyStep(Entry):
    """Keys of every step that prepares data."""

    FAMILY: ClassVar[str] = "step"
    READS_COLUMNS: ClassVar[bool] = False  # rows that no layout reads may reach it, and leave it with a layout

    kind: str
    name: Words | None = None
    """The step's name in `dropped.jsonl`, messages and on the page. `null`: the kind."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the names of the notes that the step makes of rows; later steps and `columns_added` read them."""
        return ()

    def most_rows(self, read: int | None) -> int | None:
        """Return the maximum number of rows behind the step; None: unknown."""
        return read

    @property
    def label(self) -> str:
        """What records and messages call it."""
        return self.name or self.kind
