"""Selects comparisons for people to check, so that a given number of checks estimates kappa most precisely.

Comparisons are stratified by the judge's confidence. The share W_h of each stratum is known; people's checks estimate
the judge's accuracy a_h in it. Kappa over all labels is a function of the mean sum W_h a_h, whose variance is
sum W_h^2 a_h (1 - a_h) / n_h with n_h checked comparisons in stratum h. Each further check goes to the stratum where it
lowers this sum most: Neyman's allocation (Neyman 1934, JRSS 97, 558-625), in whole numbers by the greedy steps of
Wright 2012 (The American Statistician 66, 217-224), which are exact. Strata of low confidence get more checks than
their share, and strata of high confidence fewer.

Within a stratum the selection is random, and `kappa_of_all` weights strata by their share, so the estimate is unbiased.
A selection of the least confident comparisons alone would underestimate every judge.
"""

import heapq
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignment.data.rows import Pair, Ranking
from alignment.data.sampled import of_answers
from alignment.evaluate.statistics import Bootstrap, sums_interval
from reward.audit.against import Match, kappa_of_tables, tables
from reward.audit.items import Item, Judged, People
from reward.audit.measures import Measure

EDGES = (0.5, 0.6, 0.75, 0.9, 0.97)  # lower ends of the strata, in confidence; one half alone is the first
PRIOR = 4.0  # weight of the judge's own confidence, in comparisons, as a prior of a stratum's accuracy
LEAST_DOUBT = 0.03  # prior error rate of a judge with confidence 1
TIES_SHARED = 0.2  # prior share of the judge's ties that are ties for people too


@dataclass(frozen=True, slots=True)
class Stratum:
    """Comparisons of similar confidence of the judge."""

    name: str  # "50 %", "50-60 %", ...
    items: list[Item]
    checked: int  # number checked by people
    agreed: int  # number of those on which judge and people agree

    @property
    def accuracy(self) -> float:
        """Estimated accuracy of the judge: people's checks, with the judge's own confidence as a prior."""
        sure = np.mean([max(p, 1 - p) for item in self.items if (p := item.probability) is not None])
        own = TIES_SHARED if sure == 0.5 else min(float(sure), 1 - LEAST_DOUBT)
        return (self.agreed + PRIOR * own) / (self.checked + PRIOR)


def stratum_of(item: Item) -> int:
    """Return the index of an item's stratum: 0 for a probability of exactly one half, then by confidence."""
    p = item.probability if item.probability is not None else 0.5
    confidence = max(p, 1 - p)
    return 0 if confidence == 0.5 else sum(confidence >= edge for edge in EDGES)


def strata(items: Sequence[Item], people: People) -> dict[int, Stratum]:
    """Stratify a judge's usable labels by confidence, with the existing checks of people."""
    sorted_items: dict[int, list[Item]] = defaultdict(list)
    for item in items:
        if item.usable and not item.identical:
            sorted_items[stratum_of(item)].append(item)
    found = {}
    for place, members in sorted(sorted_items.items()):
        votes = [(item, people.on(item)) for item in members]
        known = [item.winner == np.sign(sum(given.values())) for item, given in votes if given]
        found[place] = Stratum(_name(place), members, len(known), int(sum(known)))
    return found


def allocate(
    shares: Sequence[float], doubts: Sequence[float], checked: Sequence[int], room: Sequence[int], n: int
) -> list[int]:
    """Return the number of `n` comparisons for each stratum: each goes where it lowers sum W^2 s^2 / n_h most.

    Args:
        shares: W_h. doubts: s_h, the standard deviation sqrt(a_h (1 - a_h)).
        checked: comparisons that people have checked. room: comparisons that are left.
    """
    given = [0] * len(shares)

    def gain(h: int) -> float:
        before = checked[h] + given[h]
        # A stratum without checks has no estimate, so it comes first.
        return (shares[h] * doubts[h]) ** 2 * (1 / before - 1 / (before + 1)) if before else float("inf")

    heap = [(-gain(h), -shares[h], h) for h in range(len(shares)) if room[h]]
    heapq.heapify(heap)
    for _ in range(n):
        if not heap:
            break
        _, _, h = heapq.heappop(heap)
        given[h] += 1
        if given[h] < room[h]:
            heapq.heappush(heap, (-gain(h), -shares[h], h))
    return given


def suggest(judged: Judged, people: People, n: int, seed: int = 0) -> list[Ranking]:
    """Return `n` comparisons for people to check, one pair per row, in random order.

    Rows keep the judge's label and name their stratum in `provenance.suggested`. As few comparisons as possible share a
    prompt, because comparisons of one prompt are correlated.
    """
    draw = random.Random(seed)
    found = strata(judged.items, people)
    left = {place: [item for item in each.items if not people.on(item)] for place, each in found.items()}
    total = sum(len(each.items) for each in found.values())
    given = allocate(
        [len(each.items) / total for each in found.values()],
        [(each.accuracy * (1 - each.accuracy)) ** 0.5 for each in found.values()],
        [each.checked for each in found.values()],
        [len(items) for items in left.values()],
        n,
    )
    rows = []
    for (place, each), count in zip(found.items(), given, strict=True):
        for item in _spread(left[place], count, draw):
            rows.append(_row(item, judged, each, count))
    draw.shuffle(rows)
    return rows


def kappa_of_all(items: Sequence[Item], found: Sequence[Match], how: Bootstrap) -> Measure:
    """Cohen's kappa over all of a judge's labels, from the checked ones: strata are weighted by their share.

    It is unbiased if the checked comparisons are random within each stratum; `kappa` describes only the checked ones.
    None if all were checked, as `kappa` is the same then, and if a stratum has no checks.
    """
    population = np.bincount(
        [stratum_of(item) for item in items if item.usable and not item.identical], minlength=len(EDGES) + 1
    )
    usable = [match for match in found if match.item.usable]
    if not usable or len(usable) >= population.sum():
        return None
    places = np.asarray([stratum_of(match.item) for match in usable])
    judge, gold = np.asarray([m.item.winner for m in usable]), np.asarray([m.gold for m in usable])
    added = np.zeros((len(usable), len(population), 9))
    added[np.arange(len(usable)), places] = tables(judge, gold)
    held = population > 0
    if not (np.bincount(places, minlength=len(population))[held] > 0).all():
        return None

    def weighted(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        table = sums.reshape(len(sums), len(population), 9)
        counts = table.sum(axis=2, keepdims=True)
        shares = np.where(counts > 0, population[None, :, None], 0)  # a stratum that no resampling drew is left out
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.where(counts > 0, table / counts, 0.0)
            return kappa_of_tables((shares * means).sum(axis=1) / shares.sum(axis=1))

    clusters = [match.item.cluster for match in usable]
    flat = added.reshape(len(usable), -1)
    return sums_interval(flat, clusters, weighted, how).as_json()


def _spread(items: Sequence[Item], count: int, draw: random.Random) -> list[Item]:
    """Draw `count` items at random; the second item of a prompt only after one of every prompt."""
    shuffled = draw.sample(list(items), len(items))
    seen: dict[str, int] = defaultdict(int)
    ranked = []
    for order, item in enumerate(shuffled):
        ranked.append((seen[item.cluster], order, item))
        seen[item.cluster] += 1
    return [item for _, _, item in sorted(ranked, key=lambda entry: entry[:2])[:count]]


def _row(item: Item, judged: Judged, stratum: Stratum, asked: int) -> Ranking:
    pair = Pair(0, 1, item.probability, item.status, verdicts=item.verdicts)
    suggested = {"stratum": stratum.name, "of": len(stratum.items), "asked": asked}
    whole = judged.rankings[item.row].provenance
    provenance = {**whole, "suggested": suggested, **of_answers(whole, item.ends)}
    return Ranking(item.prompt, [item.first, item.second], [pair], provenance)


def _name(place: int) -> str:
    if place == 0:
        return "50 %"
    ends = (*EDGES, 1.0)
    return f"{100 * ends[place - 1]:g}-{100 * ends[place]:g} %"
