"""Strategies: the questions about a prompt's answers, and the pairs that follow from the verdicts.

Each strategy gives, for every pair of answers, the probability that the first is better, with the single verdicts. A
pair without a usable verdict in both orders has no label.
"""

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from alignment.calls.call import question_key
from alignment.calls.store_rows import Sampled
from alignment.data.rows import DESIRABLE, USABLE, Pair, Shown, SingleVerdict, Status
from alignment.evaluate.judging import Comparison, Listing, Mode, Question, Rating, Verdict

Verdicts = Mapping[tuple[str, int], Verdict]  # by question and repeat
DECIMALS = 9  # of a rating; a weighted mean of equal ratings may differ from them by rounding
IDENTICAL: Any = {"probability": 0.5, "status": "tie"}  # identical answers are a tie without a call


def key_of(question: Question) -> tuple[str, int]:
    """Return the key of a question and its repeat."""
    return question_key(question), question.repeat


def pairs_to_label(sample: Sampled, *, pairs_per_prompt: int | None, seed: int) -> list[tuple[int, int]]:
    """Return the pairs of one prompt to label: all, or `pairs_per_prompt` of them drawn by seed and position."""
    pairs = list(itertools.combinations(range(len(sample.responses)), 2))
    if pairs_per_prompt is not None and pairs_per_prompt < len(pairs):
        pairs = sorted(random.Random(f"{seed}/{sample.position}").sample(pairs, pairs_per_prompt))
    return pairs


class Strategy(Protocol):
    """The questions of one mode, and their interpretation."""

    def questions(self, sample: Sampled, pairs: Sequence[tuple[int, int]]) -> Iterator[Question]:
        """Yield the questions about one prompt's answers; a question may occur twice."""
        ...

    def label(self, sample: Sampled, pair: tuple[int, int], verdicts: Verdicts) -> Pair:
        """Return the label of one pair of different answers."""
        ...

    def evidence(self, sample: Sampled, verdicts: Verdicts) -> dict[str, Any]:
        """Return further entries of the ranking's provenance."""
        ...


def strategy_of(mode: Mode, *, samples: int, seed: int, acceptable: float | None = None) -> Strategy:
    """Return the strategy of a mode, with `samples` repeats of each question; `acceptable` as in `Pointwise`."""
    if mode == "listwise":
        return Listwise(samples, seed)
    return Pointwise(samples, acceptable) if mode == "pointwise" else Pairwise(samples)


@dataclass(frozen=True, slots=True)
class Pairwise:
    """Every pair in both orders, `samples` times each."""

    samples: int = 1

    def questions(self, sample: Sampled, pairs: Sequence[tuple[int, int]]) -> Iterator[Question]:
        """Yield both orders of every pair of different answers."""
        for first, second in pairs:
            if sample.responses[first] != sample.responses[second]:
                yield from self._repeats(sample, first, second)

    def label(self, sample: Sampled, pair: tuple[int, int], verdicts: Verdicts) -> Pair:
        """Average the two orders, https://arxiv.org/abs/2309.00267, section 3.1."""
        repeats = [(question.shown, question) for question in self._repeats(sample, *pair)]
        singles = []
        for shown, question in repeats:
            verdict = verdicts[key_of(question)]
            mass = verdict.details.get("mass")
            singles.append(SingleVerdict(shown, question.repeat, verdict.probability, verdict.status, mass))
        return both_orders(*pair, singles)

    def evidence(self, sample: Sampled, verdicts: Verdicts) -> dict[str, Any]:
        """Return no further entries."""
        return {}

    def _repeats(self, sample: Sampled, first: int, second: int) -> Iterator[Comparison]:
        for repeat in range(self.samples):
            comparison = Comparison(sample.prompt, sample.responses[first], sample.responses[second], repeat)
            yield comparison
            yield comparison.swapped()


@dataclass(frozen=True, slots=True)
class Listwise:
    """All answers of a prompt at once, in a drawn order and in its reverse, `samples` times."""

    samples: int = 1
    seed: int = 0

    def questions(self, sample: Sampled, pairs: Sequence[tuple[int, int]]) -> Iterator[Question]:
        """Yield the lists of distinct answers."""
        for _, listing in self._listings(sample):
            if len(listing.answers) > 1:
                yield listing

    def label(self, sample: Sampled, pair: tuple[int, int], verdicts: Verdicts) -> Pair:
        """Compare the positions of the two answers in each list."""
        ends = [sample.responses[end] for end in pair]
        singles = []
        for repeat, listing in self._listings(sample):
            verdict = verdicts[key_of(listing)]
            first, second = (listing.answers.index(text) for text in ends)
            shown: Shown = "first" if first < second else "swapped"
            if verdict.scores is None:
                singles.append(SingleVerdict(shown, repeat, None, verdict.status))
                continue
            ahead, behind = verdict.scores[min(first, second)], verdict.scores[max(first, second)]
            probability = 0.5 if ahead == behind else float(ahead > behind)
            singles.append(SingleVerdict(shown, repeat, probability, "tie" if probability == 0.5 else "ok"))
        return both_orders(*pair, singles)

    def evidence(self, sample: Sampled, verdicts: Verdicts) -> dict[str, Any]:
        """Return no further entries."""
        return {}

    def _listings(self, sample: Sampled) -> Iterator[tuple[int, Listing]]:
        places = [place for place, text in enumerate(sample.responses) if text not in sample.responses[:place]]
        for repeat in range(self.samples):
            order = list(places)
            random.Random(f"{self.seed}/{sample.position}/{repeat}").shuffle(order)
            for shown in (order, order[::-1]):
                answers = tuple(sample.responses[place] for place in shown)
                yield repeat, Listing(sample.prompt, answers, repeat, tuple(shown))


@dataclass(frozen=True, slots=True)
class Pointwise:
    """Every answer by itself, `samples` times; the higher rated one is preferred, and the difference is the margin."""

    samples: int = 1
    acceptable: float | None = None  # the lowest rating of a good answer; None: answers are not labelled by themselves

    def questions(self, sample: Sampled, pairs: Sequence[tuple[int, int]]) -> Iterator[Question]:
        """Yield every answer of the pairs."""
        for place in dict.fromkeys(itertools.chain.from_iterable(pairs)):
            yield from self._repeats(sample, place)

    def label(self, sample: Sampled, pair: tuple[int, int], verdicts: Verdicts) -> Pair:
        """Compare the two ratings.

        The probability is P(first rating higher) + P(equal) / 2, averaged over all pairs of repeats, with independent
        ratings. A rating without a known distribution has probability 1.
        """
        sides = [[verdicts[key_of(question)] for question in self._repeats(sample, place)] for place in pair]
        rated = [[verdict for verdict in side if verdict.scores is not None] for side in sides]
        for side, usable in zip(sides, rated, strict=True):
            if not usable:
                return Pair(*pair, None, _failure([verdict.status for verdict in side]))
        chances = [_higher(one, other) for one in rated[0] for other in rated[1]]
        probability = sum(chances) / len(chances)
        gap = _mean(rated[0]) - _mean(rated[1])
        return Pair(*pair, probability, "tie" if probability == 0.5 else "ok", margin=abs(gap))

    def evidence(self, sample: Sampled, verdicts: Verdicts) -> dict[str, Any]:
        """Return every answer's mean rating, its probability of being good, and the scores of the rubric's criteria.

        Each is null without a rating. The probability is P(rating ≥ acceptable), averaged over repeats.
        """
        ratings, criteria, good = [], [], []
        for place in range(len(sample.responses)):
            asked = [verdicts.get(key_of(question)) for question in self._repeats(sample, place)]
            rated = [verdict for verdict in asked if verdict is not None and verdict.scores is not None]
            ratings.append(_mean(rated) if rated else None)
            good.append(self._good(rated) if rated else None)
            criteria.append(rated[0].details.get("criteria") if rated else None)
        labels = {} if self.acceptable is None else {DESIRABLE: good}
        return {"ratings": ratings, **labels, **({"criteria": criteria} if any(criteria) else {})}

    def _good(self, rated: Sequence[Verdict]) -> float:
        least = -math.inf if self.acceptable is None else self.acceptable
        chances = [sum(p for score, p in _distribution(one).items() if score >= least) for one in rated]
        return min(1.0, sum(chances) / len(chances))

    def _repeats(self, sample: Sampled, place: int) -> Iterator[Rating]:
        for repeat in range(self.samples):
            yield Rating(sample.prompt, sample.responses[place], repeat)


def both_orders(first: int, second: int, asked: list[SingleVerdict]) -> Pair:
    """Average within each order, then over both; without a usable verdict in one order there is no label."""
    means: dict[str, float] = {}
    for shown in ("first", "swapped"):
        side = [each for each in asked if each.shown == shown]
        usable = [each.probability for each in side if each.status in USABLE and each.probability is not None]
        if not usable:
            return Pair(first, second, None, _failure([each.status for each in side]), verdicts=tuple(asked))
        means[shown] = sum(usable) / len(usable)
    # Not (p + 1 - q) / 2: for p = q that can round to just under one half, and a tie would be a loss.
    probability = 0.5 + (means["first"] - means["swapped"]) / 2.0
    return Pair(first, second, probability, "tie" if probability == 0.5 else "ok", verdicts=tuple(asked))


def _failure(statuses: list[Status]) -> Status:
    """The first thing that went wrong."""
    return next(status for status in statuses if status not in USABLE)


def _mean(rated: Sequence[Verdict]) -> float:
    return sum(verdict.scores[0] for verdict in rated if verdict.scores is not None) / len(rated)


def _higher(one: Verdict, other: Verdict) -> float:
    """Probability that the first rating is higher, a tie counting half."""
    first, second = _distribution(one), _distribution(other)
    return sum(p * q * (0.5 if s == t else float(s > t)) for s, p in first.items() for t, q in second.items())


def _distribution(verdict: Verdict) -> dict[float, float]:
    given = verdict.details.get("distribution")
    if given:
        total = sum(given.values())
        return {float(score): weight / total for score, weight in given.items()}
    assert verdict.scores is not None
    return {round(verdict.scores[0], DECIMALS): 1.0}
