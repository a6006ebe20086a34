"""Bars of counts for pages; `bars.html.jinja` draws them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bar:
    """A line of a bar chart with one bar, or one for each of several series."""

    label: str
    counts: list[int]
    shares: list[float]  # of the largest count of the chart, in percent


def bars_of(counts: Mapping[str, int]) -> list[Bar]:
    """Return one bar for each label, in the order given."""
    most = max(counts.values(), default=0) or 1
    return [Bar(label, [count], [100 * count / most]) for label, count in counts.items()]


def histogram(counts: Sequence[int]) -> list[Bar]:
    """Return the bars of a distribution over [0, 1] in bins of equal width."""
    size = len(counts)
    return bars_of({f"{place / size:.1f} to {(place + 1) / size:.1f}": count for place, count in enumerate(counts)})
