"""Steps that choose among all rows: sample, mix, split, balance."""

from typing import Annotated, Literal

from pydantic import Field

from alignment.config.schema.parts import Mark, Name, Words
from alignment.config.schema.steps.base import AnyStep

Weight = Annotated[float, Field(gt=0, le=10**9)]
SplitName = Annotated[str, Field(pattern="^[a-z][a-z0-9_]{0,40}$"), Mark.WORDS]


class SampleEntry(AnyStep):
    """A random sample."""

    kind: Literal["sample"]
    """Keep a random sample of the rows, in their order."""
    rows: int | None = Field(default=None, gt=0, le=10**9)
    """Number of rows to keep; fewer rows are all kept."""
    share: float | None = Field(default=None, gt=0, le=1)
    """Share of the rows to keep."""

    def most_rows(self, read: int | None) -> int | None:
        """Return the size of the sample."""
        if self.rows is not None:
            return min(self.rows, read) if read is not None else self.rows
        return None if read is None else round(read * (self.share or 1.0))


class MixEntry(AnyStep):
    """A mixture."""

    kind: Literal["mix"]
    """Draw rows so that groups have given shares of the result."""
    by: Name = "dataset"
    """What groups rows: `dataset`, a note of an earlier step such as `language`, or a column of the rows."""
    weights: dict[Words, Weight] = Field(min_length=1)
    """Shares of the groups by value, normalized to a sum of 1. A data set has the value of its `path`."""
    rows: int | None = Field(default=None, gt=0, le=10**9)
    """Number of rows of the result. `null`: as many as can be drawn without repeating a row."""
    repeat: bool = False
    """Repeat rows of a group that is too small for its share of `rows`."""

    def most_rows(self, read: int | None) -> int | None:
        """Return the size of the mixture."""
        return self.rows or read


class SplitEntry(AnyStep):
    """A split by prompt."""

    kind: Literal["split"]
    """Write the rows into several files, so that no prompt stands in two of them."""
    shares: dict[SplitName, Weight] = Field(default={"train": 0.9, "test": 0.1}, min_length=2)
    """Shares of the prompts by split, normalized to a sum of 1."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the note of the split."""
        return ("split",)


class BalanceEntry(AnyStep):
    """Limits of groups."""

    kind: Literal["balance"]
    """Draw at most as many rows of each group."""
    by: Name
    """What groups rows: a column of the rows, `dataset`, or an earlier step's note such as `language` or `cluster`."""
    maximum: int | None = Field(default=None, gt=0, le=10**9)
    """Most rows of a group. `null`: as many as the smallest group has."""
