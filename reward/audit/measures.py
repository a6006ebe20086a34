"""Measures of a judge from its labels alone, without gold labels.

Every function returns plain numbers: `value`, its interval from a bootstrap over prompts, and the counts; None if there
is nothing to count.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.data.rows import USABLE, SingleVerdict
from alignment.evaluate.statistics import Bootstrap, mean_interval, share_interval, wins
from reward.audit.items import Item

Measure = dict[str, Any] | None


def coverage(items: Sequence[Item], how: Bootstrap) -> Measure:
    """Share of comparisons with a label that is used for training: status ok or tie."""
    if not items:
        return None
    found = _share([float(item.usable) for item in items], items, how)
    return found | {"statuses": dict(sorted(Counter(item.status for item in items).items()))}


def tie_rate(items: Sequence[Item], how: Bootstrap) -> Measure:
    """Share of ties (probability exactly one half) among labels of different answers.

    `certainty` is the mean of |2p - 1|: 0 if all probabilities are one half, 1 if all are 0 or 1.
    """
    kept = [item for item in items if item.usable and not item.identical]
    if not kept:
        return None
    found = _share([float(item.winner == 0) for item in kept], kept, how)
    sure = [abs(2 * (item.probability or 0.0) - 1) for item in kept]
    identical = sum(item.identical for item in items)
    return found | {"certainty": float(np.mean(sure)), "identical_answers": identical}


def orders(item: Item) -> list[tuple[float, float]]:
    """Probabilities that the answer shown first is better, in both orders: one pair for each repeat with both."""
    by_repeat: dict[int, dict[str, float]] = {}
    for one in item.verdicts:
        if one.status in USABLE and one.probability is not None:
            by_repeat.setdefault(one.repeat, {})[one.shown] = one.probability
    return [(found["first"], found["swapped"]) for found in by_repeat.values() if len(found) == 2]


def consistency(items: Sequence[Item], how: Bootstrap) -> Measure:
    """Share of comparisons in which both orders of showing name the same winner.

    "Consistency" of https://arxiv.org/abs/2306.05685, table 2, and "agreement" of https://arxiv.org/abs/2310.07641:
    sign(p - 1/2) = -sign(q - 1/2), where p and q are the probabilities, in each order, that the answer shown first is
    better. A tie is
    consistent with a tie only.
    """
    kept, pairs = _in_both_orders(items)
    if not kept:
        return None
    return _share(wins(pairs[:, 0]) == 1 - wins(pairs[:, 1]), kept, how)


def same_position(items: Sequence[Item], how: Bootstrap) -> Measure:
    """Share of comparisons in which the same position wins in both orders.

    "Biased toward first" and "toward second" of https://arxiv.org/abs/2306.05685, table 2, are `first` and `second`.
    """
    kept, pairs = _in_both_orders(items)
    if not kept:
        return None
    first, second = (pairs > 0.5).all(axis=1), (pairs < 0.5).all(axis=1)
    found = _share(first | second, kept, how)
    return found | {"first": float(np.mean(first)), "second": float(np.mean(second))}


def position_bias(items: Sequence[Item], how: Bootstrap) -> Measure:
    """Win rate of the answer shown first minus one half, over comparisons shown in both orders.

    Each answer is shown first as often as second, so a judge without position bias has 0; +0.5: the first always wins,
    -0.5: the second always wins. Ties count half. `soft` uses the probabilities: the mean of (p + q) / 2 minus 0.5.
    (Compare the preference fairness of https://arxiv.org/abs/2406.07791, which normalises it.)
    """
    kept, pairs = _in_both_orders(items)
    if not kept:
        return None
    found = _mean(wins(pairs).mean(axis=1) - 0.5, kept, how)
    return found | {"soft": float(pairs.mean() - 0.5)}


def longer_wins(items: Sequence[Item]) -> tuple[list[Item], list[float]]:
    """Items whose answers differ in length, and 1 where the label prefers the longer one, 0 the shorter, 0.5 a tie."""
    kept = [item for item in items if item.usable and len(item.first) != len(item.second)]
    return kept, [(1 + item.winner * np.sign(len(item.first) - len(item.second))) / 2 for item in kept]


def length_bias(items: Sequence[Item], how: Bootstrap) -> Measure:
    """Win rate of the longer answer (in characters) minus one half; ties count half.

    Longer answers may be better: only the difference from people's preferences on the same comparisons
    (`against.length_biases`) is certainly a bias.
    """
    kept, longer = longer_wins(items)
    return _mean(np.subtract(longer, 0.5), kept, how) if kept else None


def cyclic_triads(items: Sequence[Item], how: Bootstrap) -> Measure:
    """Share of triads (three answers to one prompt, all three pairs decided) in which A beats B beats C beats A.

    Counted as in Kendall & Babington Smith 1940 (Biometrika 31, 324-345); random labels have 1/4. Circular
    labels agree with no ranking, so a reward model cannot fit them.
    """
    by_row: dict[int, dict[tuple[int, int], Item]] = {}
    for item in items:
        if item.usable and item.winner:
            by_row.setdefault(item.row, {})[item.ends] = item
    cyclic, kept = [], []
    for decided in by_row.values():
        beats = {ends if item.winner > 0 else ends[::-1] for ends, item in decided.items()}
        answers = sorted({end for pair in beats for end in pair})
        for a, b, c in itertools.combinations(answers, 3):
            edges = [(x, y) in beats for x, y in ((a, b), (b, c), (c, a))]
            back = [(y, x) in beats for x, y in ((a, b), (b, c), (c, a))]
            if all(one or other for one, other in zip(edges, back, strict=True)):
                cyclic.append(float(all(edges) or all(back)))
                kept.append(next(iter(decided.values())))
    return _share(cyclic, kept, how) | {"cyclic": int(sum(cyclic))} if kept else None


def self_consistency(items: Sequence[Item], how: Bootstrap) -> Measure:
    """Share of pairs of repeats (the same question in the same order) that name the same winner.

    The per-item agreement P_i of Fleiss 1971 (Psychological Bulletin 76, 378-382), eq. 2, averaged over questions
    with at least two usable repeats.
    """
    shares, kept = [], []
    for item in items:
        for shown in ("first", "swapped"):
            winners = [_winner(one) for one in item.verdicts if one.shown == shown and one.probability is not None]
            if len(winners) > 1:
                both = list(itertools.combinations(winners, 2))
                shares.append(sum(a == b for a, b in both) / len(both))
                kept.append(item)
    return _share(shares, kept, how) if kept else None


def mass(items: Sequence[Item], how: Bootstrap) -> Measure:
    """Mean probability of the offered labels together at the verdict's token, over verdicts that have it.

    With a low mass, P(A) / (P(A) + P(B)) is estimated from improbable tokens (https://arxiv.org/abs/2309.00267, section
    3.1, renormalises in the same way).
    """
    found = [(item, one.mass) for item in items for one in item.verdicts if one.mass is not None]
    return _mean([value for _, value in found], [item for item, _ in found], how) if found else None


def spent(usage: dict[str, Any], items: Sequence[Item]) -> dict[str, Any] | None:
    """Cost, tokens and seconds for a thousand accepted labels (status ok or tie).

    The cost of failed calls is included.
    """
    accepted = sum(item.usable for item in items)
    if not usage or not accepted:
        return None
    tokens = [usage.get(key) for key in ("prompt_tokens", "completion_tokens")]
    known = [count for count in tokens if isinstance(count, int | float)]
    totals = {"cost": usage.get("cost"), "tokens": sum(known) if known else None, "seconds": usage.get("seconds"),
              "calls": usage.get("calls")}  # fmt: skip
    per = {key: 1_000 * value / accepted if isinstance(value, int | float) else None for key, value in totals.items()}
    return {"accepted": accepted, "per_thousand": per, "currency": usage.get("currency"), "usage": usage}


def _winner(verdict: SingleVerdict) -> int:
    p = verdict.probability if verdict.probability is not None else 0.5
    return (p > 0.5) - (p < 0.5)


def _in_both_orders(items: Sequence[Item]) -> tuple[list[Item], NDArray[np.float64]]:
    """Items with their (n, 2) probabilities that the answer shown first is better, in either order."""
    found = [(item, pair) for item in items for pair in orders(item)]
    return [item for item, _ in found], np.asarray([pair for _, pair in found], dtype=np.float64)


def _share(values: Any, items: Sequence[Item], how: Bootstrap) -> dict[str, Any]:
    where = [item.cluster for item in items]
    return share_interval(values, where, how).as_json()


def _mean(values: Any, items: Sequence[Item], how: Bootstrap) -> dict[str, Any]:
    where = [item.cluster for item in items]
    return mean_interval(values, where, how).as_json()
