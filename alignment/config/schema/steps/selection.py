"""Steps that choose among all rows: sample."""

from typing import Literal

from pydantic import Field

from alignment.config.schema.steps.base import AnyStep


class SampleEntry(AnyStep):
    """A random sample."""

    kind: Literal["sample"]
    """Keep a random sample of the rows, in their order."""
    rows: int | None = Field(default=None, gt=0, le=10**9)
    """Number of rows to keep; fewer rows are all kept."""
    share: float | None = Field(default=None, gt=0, le=1)
    """Share of the rows to keep."""
