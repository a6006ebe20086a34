"""Which comparisons people should check so that kappa is known most precisely for the fewest of them.

Every comparison lies in a stratum: how sure the judge is of it. What is known of all labels is each stratum's share W_h
of them; what people add is how often the judge is right in it, a_h. Kappa over all labels is a function of the mean
sum W_h a_h, whose variance is sum W_h^2 a_h (1 - a_h) / n_h with n_h comparisons checked in stratum h. The next one is
always best spent where it lowers that sum most: Neyman's allocation (Neyman 1934, JRSS 97, 558-625), in whole numbers
by the greedy steps of Wright 2012 (The American Statistician 66, 217-224), which are exact. So the unsure strata are
asked about more often than their share, and the sure ones, where the judge is nearly always right, less.

Within a stratum the choice is random. That, and weighting strata by their share afterwards (`kappa_of_all`), is what
keeps the estimate unbiased; a list of the least sure comparisons alone would make any judge look bad.
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
from alignment.evaluate.statistics import sums_interval
from alignment.evaluate.winrate import Bootstrap
from reward.audit.against import Match, kappa_of_tables, tables
from reward.audit.items import Item, Judged, People
from reward.audit.measures import Measure

EDGES = (0.5, 0.6, 0.75, 0.9, 0.97)  # lower ends of the strata, in confidence; one half alone is the first
PRIOR = 4.0  # comparisons' worth of trust in the judge's own confidence before people have checked a stratum
LEAST_DOUBT = 0.03  # a judge that says 1 is taken to be wrong this often until people have said otherwise
TIES_SHARED = 0.2  # of the judge's ties, taken to be ties for people too until they have said otherwise


@dataclass(frozen=True, slots=True)
class Stratum:
    """Comparisons of which the judge is about as sure."""

    name: str  # "50 %", "50-60 %", ...
    items: list[Item]
    checked: int  # of them, by people
    agreed: int  # of those, as the people say

    @property
    def accuracy(self) -> float:
        """How often the judge is expected to be right: people's word, and its own where they have said little."""
        sure = np.mean([max(p, 1 - p) for item in self.items if (p := item.probability) is not None])
        own = TIES_SHARED if sure == 0.5 else min(float(sure), 1 - LEAST_DOUBT)
        return (self.agreed + PRIOR * own) / (self.checked + PRIOR)


def stratum_of(item: Item) -> int:
    """The place of an item's stratum: 0 for a probability of exactly one half, then by confidence."""
    p = item.probability if item.probability is not None else 0.5
    confidence = max(p, 1 - p)
    return 0 if confidence == 0.5 else sum(confidence >= edge for edge in EDGES)


def strata(items: Sequence[Item], people: People) -> dict[int, Stratum]:
    """Sort a judge's usable labels by how sure it is, with what people have checked already."""
    sorted_items: dict[int, list[Item]] = defaultdict(list)
    for item in items:
        if item.usable and not item.identical:
            sorted_items[stratum_of(item)].append(item)
    found = {}
    for place, members in sorted(sorted_items.items()):
        votes = [(item, people.on(item)) for item in members]
        known = [item.winner == np.sign(sum(said.values())) for item, said in votes if said]
        found[place] = Stratum(_name(place), members, len(known), int(sum(known)))
    return found


def allocate(
    shares: Sequence[float], doubts: Sequence[float], checked: Sequence[int], room: Sequence[int], n: int
) -> list[int]:
    """How many of `n` comparisons each stratum gets: each goes where it lowers sum W^2 s^2 / n_h most.

    Args:
        shares: W_h. doubts: s_h, the standard deviation sqrt(a_h (1 - a_h)). checked: those that people know already.
        room: those that are left to ask.
    """
    given = [0] * len(shares)

    def gain(h: int) -> float:
        before = checked[h] + given[h]
        # A stratum that nobody has looked at has no estimate at all, so it comes first.
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
    """Return the `n` comparisons to have checked, one pair a row, in random order.

    Rows keep the judge's label and say in `provenance.suggested` which stratum they stand for. Of one prompt's
    comparisons as few as can be are taken: answers to one prompt say less than answers to two.
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
    """Cohen's kappa over all of a judge's labels, from those that people checked: strata weighted by their share.

    Right whichever comparisons were checked, as long as they are random within a stratum; `kappa` is right only of
    the checked ones. None where all were checked, so that `kappa` says it, and where a stratum never was.
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
    return sums_interval(flat, clusters, weighted, how.level, how.samples, how.seed).as_json()


def _spread(items: Sequence[Item], count: int, draw: random.Random) -> list[Item]:
    """Draw `count` items at random, the second of a prompt only once every prompt has given one."""
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
