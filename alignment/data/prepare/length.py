"""Limits of lengths in characters, words or tokens."""

from collections.abc import Callable

from alignment.config.schema.steps.cleaning import LengthEntry
from alignment.data.prepare.step import ROLES, Drop, Outcome, Row, Step, StepError
from alignment.errors import first_line


class Length(Step):
    """Drops rows outside a range."""

    def __init__(self, entry: LengthEntry) -> None:
        self.entry, self.roles = entry, ROLES[entry.on]
        self.count = _counter(entry)

    def apply(self, row: Row) -> Outcome:
        """Drop the row if its texts are too short or too long."""
        found, entry = sum(map(self.count, row.parts(entry_on := self.entry.on))), self.entry
        what = {"both": "prompt and answer", "all": "texts"}.get(entry_on, entry_on)
        if entry.minimum is not None and found < entry.minimum:
            return Drop(f"{what} below {entry.minimum} {entry.unit}", f"{found} {entry.unit}")
        if entry.maximum is not None and found > entry.maximum:
            return Drop(f"{what} above {entry.maximum} {entry.unit}", f"{found} {entry.unit}")
        return row


def _counter(entry: LengthEntry) -> Callable[[str], int]:
    if entry.unit == "characters":
        return len
    if entry.unit == "words":
        return lambda text: len(text.split())
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(entry.tokenizer)
    except (OSError, ValueError, KeyError) as error:
        raise StepError(f"step length: the tokenizer {entry.tokenizer} cannot be loaded: {first_line(error)}") from None
    return lambda text: len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def build(entry: LengthEntry, seed: int) -> Length:
    """Return the step."""
    return Length(entry)
