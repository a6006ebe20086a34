"""A mixture of groups with given shares."""

import random
from typing import ClassVar

from alignment.config.schema.steps.selection import MixEntry
from alignment.data.prepare.groups import drawn, groups_of
from alignment.data.prepare.step import Change, Drop, Outcome, Row, Rows, Step, StepError


class Mix(Step):
    """Draws rows of each group."""

    LOOKS: ClassVar[bool] = True

    def __init__(self, entry: MixEntry, seed: int) -> None:
        self.entry, self.seed, self.by = entry, seed, entry.by
        self.times: dict[int, int] = {}

    def look(self, rows: Rows) -> None:
        """Draw the rows.

        Raises: StepError if a group has no weight, a weight no group, or a group too few rows.
        """
        entry = self.entry
        groups, weights = groups_of(rows, entry.by, entry.label), entry.weights
        if groups.keys() != weights.keys():
            unknown = [f"{name} is not there" for name in weights if name not in groups]
            unknown += [f"{name} has no weight" for name in groups if name not in weights]
            raise StepError(
                f"step {entry.label}: weights do not fit the values of {entry.by}: {'; '.join(unknown[:10])}. Name "
                "each value that the rows have"
            )
        shares = {name: weight / sum(weights.values()) for name, weight in weights.items()}
        total = entry.rows or int(min(len(groups[name]) / share for name, share in shares.items()))
        draw = random.Random(self.seed)
        for name, places in groups.items():
            count = round(shares[name] * total)
            if count > len(places) and entry.rows is None:
                count = len(places)  # by rounding
            if count > len(places) and not entry.repeat:
                raise StepError(
                    f"step {entry.label}: {shares[name]:.0%} of {total:,} rows are {count:,} of {name}, which has "
                    f"{len(places):,}; set repeat: true to repeat them, or lower rows"
                )
            self.times |= drawn(places, count, draw)

    def apply(self, row: Row) -> Outcome:
        """Drop a row that was not drawn; repeat one that was drawn several times."""
        times = self.times.get(row.place, 0)
        if times > 1:
            return Change(f"taken {times} times", (row,) * times)
        return row if times else Drop("not in the mixture")


def build(entry: MixEntry, seed: int) -> Mix:
    """Return the step."""
    return Mix(entry, seed)
