"""From sampled answers to rankings: every pair is put to the judge in both orders."""

import itertools
import random
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from alignment.data.rows import Pair, Ranking
from alignment.errors import JudgeError
from alignment.evaluate.judging import Comparison, Judge, Verdict, combine
from reward.feedback.asking import Question, ask_all
from reward.feedback.progress import Progress
from reward.feedback.store import ANSWERED, Call, CallStore, Sampled, question_key

FIRST_CALLS = 20  # before this many, a share of failures says little
DEAD_CALLS = 50  # failures in a row that mean the judge is gone, whatever went before
IDENTICAL = Verdict(0.5, "tie")  # the same answer twice is as good as itself; nobody is asked


@dataclass(frozen=True, slots=True)
class Planned:
    """The comparison of two answers of one prompt."""

    first: int  # index into the prompt's answers
    second: int
    comparison: Comparison

    @property
    def identical(self) -> bool:
        """Whether both answers are the same text."""
        return self.comparison.first == self.comparison.second


def plan(sample: Sampled, *, pairs_per_prompt: int | None, seed: int) -> list[Planned]:
    """Return the pairs of one prompt to compare: all, or `pairs_per_prompt` of them drawn by seed and position."""
    pairs = list(itertools.combinations(range(len(sample.responses)), 2))
    if pairs_per_prompt is not None and pairs_per_prompt < len(pairs):
        pairs = sorted(random.Random(f"{seed}/{sample.position}").sample(pairs, pairs_per_prompt))
    return [Planned(i, j, Comparison(sample.prompt, sample.responses[i], sample.responses[j])) for i, j in pairs]


def questions(pairs: list[Planned], answered: set[str]) -> Iterator[Question]:
    """Yield both orders of every pair, each question once, without those answered already."""
    seen = set(answered)
    for pair in pairs:
        if pair.identical:
            continue
        for comparison, shown in ((pair.comparison, "first"), (pair.comparison.swapped(), "swapped")):
            key = question_key(comparison)
            if key not in seen:
                seen.add(key)
                yield comparison, shown


class FailureWatch:
    """Stops a run whose judge fails too often.

    An answer that cannot be used counts as failed, save `abstain`, which is an answer.
    """

    def __init__(self, judge: str, max_failure_share: float) -> None:
        self.judge = judge
        self.max_failure_share = max_failure_share
        self.statuses: Counter[str] = Counter()
        self._recent: deque[bool] = deque(maxlen=DEAD_CALLS)
        self._last = ""

    def count(self, call: Call) -> None:
        """Take note of one call."""
        failed = call.verdict.status not in ANSWERED
        self.statuses[call.verdict.status] += 1
        self._recent.append(failed)
        if failed:
            self._last = f"{call.verdict.status}: {call.verdict.raw[:300] or 'an empty reply'}"

    def check(self, *, at_end: bool = False) -> None:
        """Raise JudgeError where the share of failed calls has passed the recipe's limit."""
        total = sum(self.statuses.values())
        failed = sum(count for status, count in self.statuses.items() if status not in ANSWERED)
        dead = self.max_failure_share < 1 and len(self._recent) == DEAD_CALLS and all(self._recent)
        too_many = failed > self.max_failure_share * total and (total >= FIRST_CALLS or at_end)
        if not (dead or too_many):
            return
        found = ", ".join(f"{status} {count}" for status, count in sorted(self.statuses.items()))
        what = f"the last {DEAD_CALLS} calls" if dead and not too_many else f"{failed} of {total} calls"
        hint = " Replies were cut off: raise judge.max_tokens." if self._mostly("truncated") else ""
        raise JudgeError(
            f"judge {self.judge}: {what} failed ({found}); max_failure_share is {self.max_failure_share:g}.{hint} "
            f"No labels were written, what was answered is kept, and the same command goes on from it. Last failure: "
            f"{self._last}"
        )

    def _mostly(self, status: str) -> bool:
        return self.statuses[status] * 2 > sum(self.statuses.values())


def label(
    samples: list[Sampled],
    judge: Judge,
    store: CallStore,
    *,
    pairs_per_prompt: int | None,
    seed: int,
    max_concurrency: int,
    max_failure_share: float,
    provenance: dict[str, Any],
) -> list[Ranking]:
    """Put every pair to the judge in both orders and return one ranking a prompt.

    What the store holds is not asked again; failures are, once a run.

    Raises: JudgeError where the judge cannot be asked or fails too often. What it answered stays in the store.
    """
    plans = [plan(sample, pairs_per_prompt=pairs_per_prompt, seed=seed) for sample in samples]
    pairs = list(itertools.chain.from_iterable(plans))
    who = {"judge": judge.name, "prompt_hash": judge.prompt_hash}
    verdicts = store.answered(**who)
    asked_in_all = len(list(questions(pairs, set())))
    todo = list(questions(pairs, set(verdicts)))
    watch = FailureWatch(judge.name, max_failure_share)
    with Progress("judged", "calls", asked_in_all, asked_in_all - len(todo)) as progress:
        for calls in ask_all(judge, todo, max_concurrency=max_concurrency):
            store.add_calls(calls, **who)
            for call in calls:
                verdicts[question_key(call.comparison)] = call.verdict
                watch.count(call)
            progress.advance(len(calls))
            watch.check()
    watch.check(at_end=True)
    return [
        Ranking(
            prompt=sample.prompt,
            responses=sample.responses,
            pairs=[_pair(planned, verdicts) for planned in planned_pairs],
            provenance={**provenance, **who, "stopped": sample.stopped},
        )
        for sample, planned_pairs in zip(samples, plans, strict=True)
    ]


def _pair(planned: Planned, verdicts: dict[str, Verdict]) -> Pair:
    if planned.identical:
        verdict = IDENTICAL
    else:
        comparison = planned.comparison
        verdict = combine(verdicts[question_key(comparison)], verdicts[question_key(comparison.swapped())])
    return Pair(planned.first, planned.second, verdict.probability, verdict.status)


def summary(rankings: list[Ranking]) -> dict[str, Any]:
    """Count pairs by status, and how many were ties because both answers were the same text."""
    pairs = [(ranking, pair) for ranking in rankings for pair in ranking.pairs]
    statuses = Counter(pair.status for _, pair in pairs)
    identical = sum(ranking.responses[pair.first] == ranking.responses[pair.second] for ranking, pair in pairs)
    decided = [abs(pair.probability - 0.5) for _, pair in pairs if pair.probability is not None]
    return {
        "prompts": len(rankings),
        "pairs": len(pairs),
        "statuses": dict(sorted(statuses.items())),
        "identical_pairs": identical,
        "mean_certainty": 2 * sum(decided) / len(decided) if decided else 0.0,  # 0: coin flips, 1: no doubt
    }
