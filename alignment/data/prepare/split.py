"""A split into several files, by prompt."""

import hashlib
import itertools
from typing import ClassVar

from alignment.config.schema.steps.selection import SplitEntry
from alignment.data.fields import BadRow
from alignment.data.prepare.step import LAYOUTS, Outcome, Row, Rows, Step, StepError
from alignment.data.splits import place_of, prompt_key

NOTE = "split"
Key = bytes


class Split(Step):
    """Notes each row's split.

    The split of a prompt depends on its text and the recipe's seed alone. Rows that share a prompt, also over a third
    row that holds several, have one split.
    """

    LOOKS: ClassVar[bool] = True

    def __init__(self, entry: SplitEntry, seed: int) -> None:
        self.entry, self.seed = entry, seed
        self.joined: dict[Key, Key] = {}  # of prompts in rows with several: a prompt → another of the same group
        total = sum(entry.shares.values())
        self.ends = list(zip(itertools.accumulate(entry.shares.values()), entry.shares, strict=True))
        self.ends = [(end / total, name) for end, name in self.ends]

    def look(self, rows: Rows) -> None:
        """Join the prompts of rows with several.

        Raises: StepError if a split gets no row.
        """
        for row in rows:
            first, *others = _keys(row)
            for other in others:
                low, high = sorted((self._group(first), self._group(other)))
                if low != high:
                    self.joined[high] = low
        empty = set(self.entry.shares)
        for row in rows:
            empty.discard(self._split(row))
            if not empty:
                return
        raise StepError(
            f"step {self.entry.label}: {', '.join(sorted(empty))} would be empty: a hash of each prompt decides, and "
            f"the {len(rows):,} rows have too few prompts; change the shares or the seed"
        )

    def apply(self, row: Row) -> Outcome:
        """Return the row with its split."""
        return row.noting(**{NOTE: self._split(row)})

    def _split(self, row: Row) -> str:
        place = place_of(self._group(_keys(row)[0]).hex(), self.seed)
        return next((name for end, name in self.ends if place < end), self.ends[-1][1])

    def _group(self, key: Key) -> Key:
        while key in self.joined:
            key = self.joined[key]
        return key


def _keys(row: Row) -> list[Key]:
    """Return the keys of a row's prompts."""
    layout = LAYOUTS.get(row.layout)
    try:
        parsed = layout.read(row.value) if layout is not None else []
    except BadRow as error:
        raise StepError(f"step split: {row.origin}: {error}; an earlier step left it so") from None
    texts = [prompt_key(one if hasattr(one, "completion") else one.prompt) for one in parsed] or [row.joined("all")]  # type: ignore[arg-type]
    return [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16] for text in dict.fromkeys(texts)]


def build(entry: SplitEntry, seed: int) -> Split:
    """Return the step."""
    return Split(entry, seed)
