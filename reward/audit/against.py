"""Agreement of a judge with people on the same comparisons.

The order of the answers in a file is arbitrary, so agreement beyond chance is computed over both orders: every
comparison counts once as it is and once mirrored. Kappa and alpha then do not depend on the order. (In preference files
the chosen answer is always the first, and the usual kappa would be 0 or undefined.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import krippendorff
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from alignment.data.rows import SingleVerdict
from alignment.evaluate.statistics import Bootstrap, mean_interval, share_interval, sums_interval
from reward.audit.items import Item, People
from reward.audit.measures import Measure, longer_wins, orders

VALUES = (-1.0, 0.0, 1.0)  # the second is better, a tie, the first is better
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Match:
    """A comparison with a label of the judge and votes of people."""

    item: Item
    votes: tuple[float, ...]  # one a person: 1 for the item's first answer, -1 for the second, 0 a tie
    who: tuple[str, ...]

    @property
    def gold(self) -> float:
        """The people's label: the side with more votes; 0 if they are even."""
        return float(np.sign(sum(self.votes)))

    @property
    def share(self) -> float:
        """Share of votes for the first answer, ties half."""
        return (1 + sum(self.votes) / len(self.votes)) / 2


def matches(items: Sequence[Item], people: People) -> list[Match]:
    """Return the items that people voted on."""
    voted = [(item, people.on(item)) for item in items if not item.identical]
    return [Match(item, tuple(votes.values()), tuple(votes)) for item, votes in voted if votes]


def accuracy(found: Sequence[Match], how: Bootstrap) -> Measure:
    """Share of comparisons that the judge's label decides as the people do; a tie of the judge counts half.

    Counted over comparisons that people decided and the judge gave a usable label; `coverage` is the share of the
    former that have the latter. Missing verdicts do not lower this accuracy, but `accuracy_strict`.
    """
    decided = [match for match in found if match.gold]
    usable = [match for match in decided if match.item.usable]
    if not usable:
        return None
    measured = _share([_credit(m.item.winner, m.gold) for m in usable], usable, how)
    return measured | {"coverage": len(usable) / len(decided)}


def accuracy_strict(found: Sequence[Match], how: Bootstrap) -> Measure:
    """Share of comparisons that people decided in which the judge's label names their winner.

    No verdict and a tie count as wrong.
    """
    decided = [match for match in found if match.gold]
    if not decided:
        return None
    return _share([float(m.item.usable and m.item.winner == m.gold) for m in decided], decided, how)


def both_orders_correct(found: Sequence[Match], how: Bootstrap) -> Measure:
    """Share of comparisons that people decided in which the judge names their winner in both orders of showing.

    `correct_both` in the files of https://arxiv.org/abs/2310.07641. Only comparisons that were asked in both orders
    count; no verdict and a tie count as wrong.
    """
    asked = [match for match in found if match.gold and len({one.shown for one in match.item.verdicts}) == 2]
    if not asked:
        return None
    return _share([float(all(_names(one, m.gold) for one in m.item.verdicts)) for m in asked], asked, how)


def _names(asked: SingleVerdict, gold: float) -> bool:
    """Whether one verdict names the people's winner: 1 for the first answer of the comparison, -1 for the second."""
    return asked.probability is not None and _winner_of(asked) == gold


def _winner_of(asked: SingleVerdict) -> float:
    """Return 1 if a verdict with a probability prefers the comparison's first answer, -1 the second, 0 for a tie."""
    return float(np.sign((asked.probability or 0.0) - 0.5)) * (1 if asked.shown == "first" else -1)


def accuracy_one_order(found: Sequence[Match], how: Bootstrap) -> Measure:
    """Accuracy of single verdicts, the mean over both orders; failures are not counted.

    If every question has a verdict, it is `correct_average` in the files of https://arxiv.org/abs/2310.07641, the
    accuracy published there. Of verdicts without probabilities it equals `accuracy`: where the orders differ, one of
    the two verdicts is right.
    """
    credits, kept = [], []
    for match in found:
        if not match.gold:
            continue
        for asked in match.item.verdicts:
            if asked.probability is not None:
                credits.append(_credit(_winner_of(asked), match.gold))
                kept.append(match)
    return _share(credits, kept, how) if kept else None


def accuracy_when_consistent(found: Sequence[Match], how: Bootstrap) -> Measure:
    """Accuracy over the comparisons in which every pair of orders names the same winner; `share` is theirs."""
    asked = [(match, orders(match.item)) for match in found if match.gold and match.item.usable]
    asked = [(match, pairs) for match, pairs in asked if pairs]
    kept = [match for match, pairs in asked if all((p - 0.5) * (q - 0.5) < 0 for p, q in pairs)]
    if not kept:
        return None
    return _share([_credit(m.item.winner, m.gold) for m in kept], kept, how) | {"share": len(kept) / len(asked)}


def kappa(found: Sequence[Match], how: Bootstrap) -> Measure:
    """Cohen's kappa of judge and people: (p_o - p_e) / (1 - p_e) over first, second and tie, both namings counted.

    Cohen 1960 (Educational and Psychological Measurement 20, 37-46); the value is scikit-learn's. Without ties p_e is
    one half, so kappa is twice the agreement less one.
    """
    usable = [match for match in found if match.item.usable]
    if not usable:
        return None
    judge, gold = (np.asarray(v) for v in ([m.item.winner for m in usable], [m.gold for m in usable]))
    interval = sums_interval(tables(judge, gold), _clusters(usable), kappa_of_tables, how).as_json()
    both, other = np.concatenate([judge, -judge]), np.concatenate([gold, -gold])
    value = float(cohen_kappa_score(both, other, labels=list(VALUES))) if _varies(both, other) else None
    return interval | {"value": value, "observed": float(np.mean(judge == gold))}


def tables(judge: Array, gold: Array) -> Array:
    """Return each comparison's counts in the 3 x 3 table of judge by people, with its mirror image; (n, 9)."""
    cell = ((judge + 1) * 3 + gold + 1).astype(int)
    added = np.zeros((len(cell), 9))
    added[np.arange(len(cell)), cell] += 1
    added[np.arange(len(cell)), 8 - cell] += 1
    return added


def kappa_of_tables(counts: Array) -> Array:
    """Kappa of each (9,) table of counts; NaN where the expected agreement is 1."""
    table = counts.reshape(-1, 3, 3)
    total = table.sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = np.trace(table, axis1=1, axis2=2) / total
        chance = (table.sum(axis=1) * table.sum(axis=2)).sum(axis=1) / total**2
        return np.where(chance < 1, (observed - chance) / (1 - chance), np.nan)


def alpha(found: Sequence[Match], how: Bootstrap) -> dict[str, Measure]:
    """Krippendorff's alpha of judge and people's label, 1 - D_o / D_e, by level of measurement.

    Krippendorff 2019, Content Analysis, chapter 12; nominal and ordinal values are those of the `krippendorff` package,
    whose memory for the interval level would grow with the cube of the number of probabilities. Nominal and ordinal
    compare winners (second, tie, first); interval compares the judge's 2p - 1 with the people's mean vote, so there the
    probability counts, not only the winner.
    """
    usable = [match for match in found if match.item.usable]
    if not usable:
        return {}
    winners = np.asarray([[match.item.winner, match.gold] for match in usable])
    graded = np.asarray([[2 * (m.item.probability or 0.0) - 1, 2 * m.share - 1] for m in usable])
    levels = {"nominal": winners, "ordinal": winners, "interval": graded}
    return {level: _alpha(list(values), level, _clusters(usable), how) for level, values in levels.items()}


def people_alpha(found: Sequence[Match], how: Bootstrap) -> dict[str, Measure]:
    """Krippendorff's alpha of the people among themselves, over comparisons with several votes."""
    several = [match for match in found if len(match.votes) > 1]
    if not several:
        return {}
    return alphas([np.asarray(match.votes) for match in several], _clusters(several), how)


def alphas(votes: list[Array], clusters: Sequence[str], how: Bootstrap) -> dict[str, Measure]:
    """Krippendorff's alpha by level of measurement; `votes` has those on each comparison, two or more."""
    winners = [np.sign(each) for each in votes]
    levels = {"nominal": winners, "ordinal": winners, "interval": votes}
    return {level: _alpha(units, level, clusters, how) for level, units in levels.items()}


def _alpha(units: list[Array], level: str, clusters: Sequence[str], how: Bootstrap) -> Measure:
    """Alpha of units with two or more values each, mirrored; the interval from each unit's share of coincidences."""
    values = np.unique(np.concatenate([np.concatenate(units), -np.concatenate(units)]))
    if len(values) < 2:
        return None
    if level == "interval":  # alpha needs but sums of squares there, however many different values there are
        added = np.asarray([_squares(unit) for unit in units])
        return sums_interval(added, clusters, _interval_alpha, how).as_json()
    added = np.asarray([_coincidences(unit, values) for unit in units])
    interval = sums_interval(added, clusters, lambda sums: _coincidence_alpha(sums, len(values), level), how)
    both = [*units, *(-unit for unit in units)]
    counts = np.asarray([[np.count_nonzero(unit == value) for value in values] for unit in both])
    value = float(krippendorff.alpha(value_counts=counts, value_domain=values, level_of_measurement=level))
    return interval.as_json() | {"value": value}


def _coincidences(unit: Array, values: Array) -> Array:
    """What a unit and its mirror image add to the coincidence matrix, eq. in section 12.3.2; flat."""
    total = np.zeros((len(values), len(values)))
    for side in (unit, -unit):
        counts = np.asarray([np.count_nonzero(side == value) for value in values], dtype=np.float64)
        total += (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    return total.ravel()


def _coincidence_alpha(sums: Array, size: int, level: str) -> Array:
    observed = sums.reshape(-1, size, size)
    marginals = observed.sum(axis=2)
    n = marginals.sum(axis=1)
    if level == "nominal":
        distance = np.broadcast_to(1.0 - np.eye(size), observed.shape)
    else:  # ordinal: (values between, ends counted half) squared
        below = np.cumsum(marginals, axis=1) - marginals / 2
        distance = (below[:, :, None] - below[:, None, :]) ** 2
    expected = marginals[:, :, None] * marginals[:, None, :]  # the diagonal has no distance
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - (n - 1) * (observed * distance).sum(axis=(1, 2)) / (expected * distance).sum(axis=(1, 2))


def _squares(unit: Array) -> Array:
    """Number of values, squared differences within, and squares, of a unit and its mirror image."""
    differences = ((unit[:, None] - unit[None, :]) ** 2).sum() / (len(unit) - 1)
    return np.asarray([2 * len(unit), 2 * differences, 2 * (unit**2).sum()])


def _interval_alpha(sums: Array) -> Array:
    n, within, squares = sums.T  # the mirrored values' mean is 0, so their squares are their spread
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - (n - 1) * within / (2 * n * squares)


def human_ceiling(found: Sequence[Match], how: Bootstrap) -> Measure:
    """Agreement of one person with the others, leave-one-out.

    Each vote of a comparison with several is compared with the side that most of the other votes take (ties half).
    `judge` is the judge's agreement with the same majorities, `judge_behind` the difference between one more
    person and the judge. The "human agreement" of https://arxiv.org/abs/2305.14387, section 4.
    """
    human, judge, kept = [], [], []
    for match in found:
        if len(match.votes) < 2 or not match.item.usable:
            continue
        for vote in match.votes:
            others = float(np.sign(sum(match.votes) - vote))
            if others:
                human.append(_credit(vote, others))
                judge.append(_credit(match.item.winner, others))
                kept.append(match)
    if not kept:
        return None
    behind = mean_interval(np.subtract(human, judge), _clusters(kept), how).as_json()
    return _share(human, kept, how) | {"judge": _share(judge, kept, how), "judge_behind": behind}


def length_biases(found: Sequence[Match], how: Bootstrap) -> dict[str, Measure]:
    """Length bias of people, of the judge on the same comparisons, and the judge's less the people's.

    The last is the bias of the judge alone; https://arxiv.org/abs/2310.10076 calls it verbosity bias.
    """
    by_item = {id(match.item): match for match in found}
    kept, judge = longer_wins([match.item for match in found])
    if not kept:
        return {}
    votes = [2 * by_item[id(item)].share - 1 for item in kept]
    sides = [float(np.sign(len(item.first) - len(item.second))) for item in kept]
    people = [(1 + vote * side) / 2 for vote, side in zip(votes, sides, strict=True)]
    where = [item.cluster for item in kept]

    def interval(values: Any) -> Measure:
        return mean_interval(values, where, how).as_json()

    return {
        "people_length_bias": interval(np.subtract(people, 0.5)),
        "judge_length_bias": interval(np.subtract(judge, 0.5)),
        "length_bias_difference": interval(np.subtract(judge, people)),
    }


def _credit(vote: float, gold: float) -> float:
    """Return 1 for the same winner, 0 for the other, 0.5 if either is a tie."""
    return (1 + vote * gold) / 2


def _varies(first: Array, second: Array) -> bool:
    return len(np.unique(np.concatenate([first, second]))) > 1


def _clusters(found: Sequence[Match]) -> list[str]:
    return [match.item.cluster for match in found]


def _share(values: Any, found: Sequence[Match], how: Bootstrap) -> dict[str, Any]:
    return share_interval(values, _clusters(found), how).as_json()
