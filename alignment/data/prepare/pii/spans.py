"""Spans of personal data in a text, and which of overlapping spans count."""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

_WORD = re.compile(r"\w")


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a text that holds personal data of a type."""

    start: int  # characters from the text's beginning
    end: int
    kind: str  # "EMAIL_ADDRESS"
    score: float  # 0 to 1; a checksum gives 1
    model: bool = False  # a model found it, not a pattern

    def overlaps(self, other: "Span") -> bool:
        """Whether a character belongs to both."""
        return self.start < other.end and other.start < self.end

    def holds(self, other: "Span") -> bool:
        """Whether every character of another span belongs to this one."""
        return self.start <= other.start and other.end <= self.end


def chosen(spans: Iterable[Span], kinds: Collection[str], text: str) -> list[Span]:
    """Return the spans of some types, without overlaps, in the order of the text.

    A pattern's span is left out where a pattern of a higher score found something else there: the domain in an email
    address, a card number read as a telephone number. That holds for types that are not chosen too. Of the rest, a span
    that holds another one takes its place, and one that overlaps partly is cut, so that no found character is lost.
    """
    found = sorted(set(spans), key=lambda span: (-span.score, span.start, -span.end, span.kind))
    patterns = [span for span in found if not span.model]
    kept = [span for span in found if span.kind in kinds and (span.model or not _refuted(span, patterns))]
    kept.sort(key=lambda span: (-(span.end - span.start), -span.score, span.start, span.kind))
    outer: list[Span] = []
    for span in kept:
        if not any(other.holds(span) for other in outer):
            outer.append(span)
    outer.sort(key=lambda span: (-span.score, span.start, span.kind))
    apart: list[Span] = []
    for span in outer:
        apart.extend(rest for rest in _without(span, apart) if _WORD.search(text, rest.start, rest.end))
    return sorted(apart, key=lambda span: span.start)


def _refuted(span: Span, patterns: Iterable[Span]) -> bool:
    """Whether a pattern of a higher score overlaps a span and is not a part of it."""
    return any(
        other.score > span.score and other.overlaps(span) and (not span.holds(other) or other.holds(span))
        for other in patterns
    )


def _without(span: Span, taken: Iterable[Span]) -> Iterator[Span]:
    """Yield the parts of a span that no other span covers."""
    start = span.start
    for other in sorted((other for other in taken if other.overlaps(span)), key=lambda other: other.start):
        if start < other.start:
            yield replace(span, start=start, end=other.start)
        start = max(start, other.end)
    if start < span.end:
        yield replace(span, start=start)
