"""What rows state of their texts: a label, a class, or which answer is the better one."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.data.contradictions import Claim, claims_of, contradictions
from alignment.data.fields import BadRow
from alignment.data.layouts import Parsed
from alignment.data.prepare.step import LAYOUTS, Row
from alignment.data.rows import Demonstration, Pair, Ranking

CLASS = "label"  # the column of a class, in rows of texts and in rows without a layout


class Labels:
    """Reads what rows state.

    Args:
        column: of the label; None: what the row's layout reads as one, or the column `label`.
    """

    def __init__(self, column: str | None) -> None:
        self.column = column
        self._states: dict[str, bool] = {}  # layout → whether its rows state something

    def __call__(self, row: Row) -> tuple[str, Sequence[Claim]]:
        """Return the label as text, "" for none, and which of two answers, in whatever order, is the better one."""
        column = self.column_of(row)
        if column is not None:
            value = row.column(column)
            return ("" if value is None else _shown(value)), ()
        if self._states.get(row.layout, True):
            parsed = _parsed(row)
            found = [_stated(one) for one in parsed]
            self._states.setdefault(
                row.layout, not parsed or any(isinstance(one, Ranking) for one in parsed) or any(found)
            )
            claims = [claim for one in parsed if isinstance(one, Ranking) for claim in claims_of(one, row.value)]
            return "; ".join(filter(None, found)), claims
        return "", ()

    def column_of(self, row: Row) -> str | None:
        """Return the column of a row's label; None if the label is what the layout reads."""
        return self.column or (CLASS if row.layout in ("", "text") else None)


@dataclass(frozen=True)
class Conflicts:
    """Rows whose texts agree and whose labels do not.

    Args:
        groups: of each group, the labels by the place of the first row with each.
    """

    groups: list[dict[int, str]]
    others: dict[int, int] = field(default_factory=dict)  # place of a row in a conflict → of one with another label


def conflicts_in(clusters: NDArray[np.int64], labels: Sequence[str], claims: Sequence[Sequence[Claim]]) -> Conflicts:
    """Return the conflicts of rows.

    Args:
        clusters: (rows,) a number for the texts of each row. labels, claims: of each row, as `Labels` returns them.
    """
    found = Conflicts([])
    if not any(labels):
        return found
    firsts: dict[int, dict[str, int]] = {}  # cluster → label → first row
    for place, (cluster, label) in enumerate(zip(clusters.tolist(), labels, strict=True)):
        if label:
            firsts.setdefault(cluster, {}).setdefault(label, place)
    for place, (cluster, label) in enumerate(zip(clusters.tolist(), labels, strict=True)):
        if label and len(firsts[cluster]) > 1:
            found.others[place] = next(first for other, first in firsts[cluster].items() if other != label)
    found.groups.extend({place: label for label, place in one.items()} for one in firsts.values() if len(one) > 1)
    for pair in contradictions(claims):
        if not {pair.first, pair.second} <= found.others.keys():
            found.groups.append({place: f"{labels[place]}, answers exchanged" for place in (pair.first, pair.second)})
        found.others.setdefault(pair.first, pair.second)
        found.others.setdefault(pair.second, pair.first)
    return found


def _parsed(row: Row) -> list[Parsed]:
    try:
        return LAYOUTS[row.layout].read(row.value)
    except BadRow:  # an earlier step left it so
        return []


def _stated(parsed: Parsed) -> str:
    if isinstance(parsed, Demonstration):
        return "" if parsed.desirable is None else _shown(parsed.desirable)
    if isinstance(parsed, Ranking):
        return ", ".join(map(_compared, parsed.pairs))
    return ""


def _compared(pair: Pair) -> str:
    told = f"{pair.first} over {pair.second}: {pair.status if pair.probability is None else f'{pair.probability:g}'}"
    return told if pair.margin is None else f"{told} by {pair.margin:g}"


def _shown(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
