"""Detection of text that another program decoded with the wrong encoding before the file was written."""

from collections.abc import Iterator
from dataclasses import dataclass

from alignment.data.layouts import Only, Parsed
from alignment.data.rows import Ranking
from alignment.data.sampled import is_sampled
from alignment.errors import printable
from alignment.meter import say_once

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # in place of bytes that a program could not decode
_MOJIBAKE = "\u00e2\u20ac"  # what UTF-8's quotation marks and dashes begin with where they are read as Windows-1252


@dataclass
class Damage:
    """The rows of a file with such text: how many, and the first."""

    file: str
    rows: int = 0
    first: str = ""

    def look_at(self, parsed: Parsed, where: str) -> None:
        """Count a row if its text is damaged."""
        for text in _texts(parsed):
            if REPLACEMENT in text or _MOJIBAKE in text:
                self.rows += 1
                place = text.index(REPLACEMENT if REPLACEMENT in text else _MOJIBAKE)
                self.first = self.first or f"{where}, {text[max(0, place - 20) :][:40]!r}"
                return

    def say(self) -> None:
        """Write the count to standard error."""
        if self.rows:
            hold = "rows hold" if self.rows > 1 else "row holds"
            fault = f"{self.rows:,} {hold} text that was decoded wrongly before it was saved, and is trained as it is"
            say_once(printable(f"{self.file}: {fault}; the first is {self.first}"))


def _texts(parsed: Parsed) -> Iterator[str]:
    """Yield the texts of a row, without answers that a policy sampled: those may end inside a character."""
    if isinstance(parsed.prompt, str):
        yield parsed.prompt
    else:
        for message in parsed.prompt:
            yield message["content"]
    if isinstance(parsed, Ranking):
        if not is_sampled(parsed.provenance):
            yield from parsed.responses
    elif not isinstance(parsed, Only):
        yield parsed.completion
