"""Precision, recall and F1 of a judge's labels, for each answer of the file's order and for ties."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.evaluate.statistics import Bootstrap, sums_interval
from reward.audit.against import VALUES, Match

Array = NDArray[np.float64]
NAMES = {1.0: "first", -1.0: "second", 0.0: "tie"}  # what people prefer: an answer by its place in the file, or neither


def classes(found: Sequence[Match], how: Bootstrap) -> dict[str, Any] | None:
    """Return precision, recall and F1 for each class that people or the judge name, and the mean of the classes' F1.

    Counted over comparisons with a usable label, in the order in which the file has the answers: a file with the chosen
    answer always first has one class of people alone. Precision is None for a class that the judge never names, recall
    for one that people never name; F1 is then 0, as scikit-learn's, where either names it.
    """
    usable = [match for match in found if match.item.usable]
    if not usable:
        return None
    cells = np.zeros((len(usable), 9))  # judge by people, flat
    for row, match in enumerate(usable):
        cells[row, VALUES.index(match.item.winner) * 3 + VALUES.index(match.gold)] = 1
    where = [match.item.cluster for match in usable]
    total = cells.sum(axis=0).reshape(3, 3)
    present = [place for place in range(3) if total[place].sum() + total[:, place].sum()]
    by_class = {}
    for place in sorted(present, key=lambda place: list(NAMES).index(VALUES[place])):
        measures = {
            name: sums_interval(cells, where, _measure(statistic, place), how).as_json()
            for name, statistic in (("precision", _precision), ("recall", _recall), ("f1", _f1))
        }
        by_class[NAMES[VALUES[place]]] = {
            "people": int(total[:, place].sum()),
            "judge": int(total[place].sum()),
            **measures,
        }

    def macro(sums: Array) -> Array:
        return np.mean([_f1(sums.reshape(-1, 3, 3), place) for place in present], axis=0)

    return {"classes": by_class, "macro_f1": sums_interval(cells, where, macro, how).as_json()}


def _measure(statistic: Any, place: int) -> Any:
    return lambda sums: statistic(sums.reshape(-1, 3, 3), place)


def _precision(table: Array, place: int) -> Array:
    return _ratio(table[:, place, place], table[:, place].sum(axis=1))


def _recall(table: Array, place: int) -> Array:
    return _ratio(table[:, place, place], table[:, :, place].sum(axis=1))


def _f1(table: Array, place: int) -> Array:
    """Return 2 TP / (2 TP + FP + FN), 0 where nothing is counted, so that a mean over classes has a value."""
    named = table[:, place].sum(axis=1) + table[:, :, place].sum(axis=1)
    return np.nan_to_num(_ratio(2 * table[:, place, place], named))


def _ratio(part: Array, whole: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole > 0, part / whole, np.nan)
