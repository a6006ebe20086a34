"""A random sample of the rows."""

import random
from typing import ClassVar

from alignment.config.schema.steps.selection import SampleEntry
from alignment.data.prepare.step import Drop, Outcome, Row, Rows, Step


class Sample(Step):
    """Keeps rows at random, in their order."""

    LOOKS: ClassVar[bool] = True

    def __init__(self, entry: SampleEntry, seed: int) -> None:
        self.entry, self.seed = entry, seed
        self.kept: set[int] = set()

    def look(self, rows: Rows) -> None:
        """Draw the rows that stay."""
        count = len(rows)
        wanted = self.entry.rows if self.entry.rows is not None else round(count * (self.entry.share or 1.0))
        self.kept = set(random.Random(self.seed).sample(range(count), min(wanted, count)))

    def apply(self, row: Row) -> Outcome:
        """Drop a row that was not drawn."""
        return row if row.place in self.kept else Drop("not in the sample")


def build(entry: SampleEntry, seed: int) -> Sample:
    """Return the step."""
    return Sample(entry, seed)
