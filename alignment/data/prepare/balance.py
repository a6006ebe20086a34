"""Limits of the number of rows in each group."""

import random
from typing import ClassVar

from alignment.config.schema.steps.selection import BalanceEntry
from alignment.data.prepare.groups import drawn, groups_of
from alignment.data.prepare.step import Drop, Outcome, Row, Rows, Step


class Balance(Step):
    """Draws at most as many rows of each group."""

    LOOKS: ClassVar[bool] = True

    def __init__(self, entry: BalanceEntry, seed: int) -> None:
        self.entry, self.seed, self.by = entry, seed, entry.by
        self.kept: set[int] = set()

    def look(self, rows: Rows) -> None:
        """Draw the rows."""
        groups = groups_of(rows, self.entry.by, self.entry.label)
        most = self.entry.maximum or min(map(len, groups.values()))
        draw = random.Random(self.seed)
        for places in groups.values():
            self.kept |= drawn(places, min(most, len(places)), draw).keys()

    def apply(self, row: Row) -> Outcome:
        """Drop a row that was not drawn."""
        return row if row.place in self.kept else Drop(f"above the most rows of one {self.entry.by}")


def build(entry: BalanceEntry, seed: int) -> Balance:
    """Return the step."""
    return Balance(entry, seed)
