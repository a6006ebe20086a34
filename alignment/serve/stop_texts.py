"""Texts that end an answer, found across the boundaries of tokens."""

from collections.abc import Sequence


class StopTexts:
    """Looks for texts in an answer that arrives in parts. The text from a stop on is dropped.

    The stop that is complete first counts, whatever the parts. No part of a stop is let out before it is certain that
    the rest does not follow.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self.held = ""

    def add(self, text: str) -> tuple[str, bool]:
        """Return the text that no stop can change, and whether a stop was found."""
        held = self.held + text
        found = [(place + len(stop), place) for stop in self._stops if (place := held.find(stop)) >= 0]
        if found:
            self.held = ""
            return held[: min(found)[1]], True
        keep = max((_begun(held, stop) for stop in self._stops), default=0)
        self.held = held[len(held) - keep :]
        return held[: len(held) - keep], False

    def end(self) -> str:
        """Return what is still held: the answer has ended within a stop."""
        held, self.held = self.held, ""
        return held


def _begun(text: str, stop: str) -> int:
    """Return how many characters of a stop the end of a text may be."""
    longest = min(len(stop) - 1, len(text))
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
