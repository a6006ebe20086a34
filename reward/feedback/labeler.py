"""Labels answers: sends a judge the questions of its strategy and turns the verdicts into pairs."""

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from alignment.calls.asking import ask_all
from alignment.calls.rejecting import ANSWERED, RejectingJudge
from alignment.calls.store import CallStore
from alignment.calls.store_rows import Sampled
from alignment.data.rows import Pair, Ranking
from alignment.errors import BudgetError, JudgeError
from alignment.evaluate.judging import Judge, Question, Verdict
from alignment.meter import ProgressBar
from reward.feedback.strategies import IDENTICAL, Strategy, Verdicts, key_of, pairs_to_label

FIRST_CALLS = 20  # fewer are too few to estimate the share of failures
DEAD_CALLS = 50  # consecutive failures that stop a run, whatever came before


class FailureWatch:
    """Stops a run whose judge fails too often. Every status except "ok", "tie" and "abstain" is a failure."""

    def __init__(self, judge: str, max_failure_share: float) -> None:
        self.judge = judge
        self.max_failure_share = max_failure_share
        self.statuses: Counter[str] = Counter()
        self._recent: deque[bool] = deque(maxlen=DEAD_CALLS)
        self._last = ""

    def count(self, verdict: Verdict) -> None:
        """Count one verdict."""
        failed = verdict.status not in ANSWERED
        self.statuses[verdict.status] += 1
        self._recent.append(failed)
        if failed:
            self._last = f"{verdict.status}: {verdict.raw[:300] or 'an empty reply'}"

    def check(self, *, at_end: bool = False) -> None:
        """Raise JudgeError if the share of failed questions exceeds the recipe's limit."""
        total = sum(self.statuses.values())
        failed = sum(count for status, count in self.statuses.items() if status not in ANSWERED)
        dead = self.max_failure_share < 1 and len(self._recent) == DEAD_CALLS and all(self._recent)
        too_many = failed > self.max_failure_share * total and (total >= FIRST_CALLS or at_end)
        if not (dead or too_many):
            return
        found = ", ".join(f"{status} {count}" for status, count in sorted(self.statuses.items()))
        what = f"the last {DEAD_CALLS} questions" if dead and not too_many else f"{failed} of {total} questions"
        hint = " Replies were cut off: raise judge.max_tokens." if self._mostly("truncated") else ""
        raise JudgeError(
            f"judge {self.judge}: {what} failed ({found}); max_failure_share is {self.max_failure_share:g}.{hint} "
            f"No labels were written, what was answered is kept, and the same command resumes from it. Last failure: "
            f"{self._last}"
        )

    def _mostly(self, status: str) -> bool:
        return self.statuses[status] * 2 > sum(self.statuses.values())


def label(
    samples: list[Sampled],
    judge: Judge[Any],
    strategy: Strategy,
    *,
    pairs_per_prompt: int | None,
    seed: int,
    max_concurrency: int,
    max_failure_share: float,
    provenance: dict[str, Any],
    store: CallStore | None = None,
    spent: Callable[[], str] = lambda: "",
) -> list[Ranking]:
    """Send the judge all questions of the strategy and return one ranking per prompt.

    Replies in the store of the judge's `Caller` are reused. Questions that failed are sent again, once per run.

    Args:
        store: of the calls; replies without a verdict are marked there. spent: returns the cost shown in the progress.

    Raises: JudgeError if the judge is not available or fails too often; BudgetError at the limit of the budget. The
        replies stay in the store.
    """
    plans = [pairs_to_label(sample, pairs_per_prompt=pairs_per_prompt, seed=seed) for sample in samples]
    verdicts = ask(
        judge,
        [
            question
            for sample, pairs in zip(samples, plans, strict=True)
            for question in strategy.questions(sample, pairs)
        ],
        max_concurrency=max_concurrency,
        max_failure_share=max_failure_share,
        store=store,
        spent=spent,
    )
    judged_by = {"source": "judge", "judge": judge.name, "prompt_hash": judge.prompt_hash}
    return [
        Ranking(
            prompt=sample.prompt,
            responses=sample.responses,
            pairs=[_pair(sample, pair, strategy, verdicts) for pair in pairs],
            provenance={**provenance, **judged_by, **strategy.evidence(sample, verdicts), **sample.of_answers()},
        )
        for sample, pairs in zip(samples, plans, strict=True)
    ]


def ask(
    judge: Judge[Any],
    questions: list[Question],
    *,
    max_concurrency: int,
    max_failure_share: float,
    store: CallStore | None = None,
    spent: Callable[[], str] = lambda: "",
    doing: str = "judged",
) -> dict[tuple[str, int], Verdict]:
    """Send every distinct question once; return the verdicts by question and repeat.

    Args:
        doing: what the progress bar names.

    Raises: JudgeError and BudgetError as `label`.
    """
    different = {key_of(question): question for question in questions}
    verdicts: dict[tuple[str, int], Verdict] = {}
    watch = FailureWatch(judge.name, max_failure_share)
    try:
        with ProgressBar(f"label: {doing}", "questions", len(different), note=spent) as progress:
            asked = ask_all(RejectingJudge(judge, store), different.values(), max_concurrency=max_concurrency)
            for batch in asked:
                for question, verdict in batch:
                    verdicts[key_of(question)] = verdict
                    watch.count(verdict)
                progress.advance(len(batch))
                try:
                    watch.check()
                except JudgeError as error:
                    asked.throw(error)  # waits for the calls in flight
    except BudgetError as error:
        raise BudgetError(
            f"{len(different)} questions are not all answered: {error} No labels were written; what was answered is "
            "kept, and the same command with a higher budget resumes from it."
        ) from None
    watch.check(at_end=True)
    return verdicts


def _pair(sample: Sampled, pair: tuple[int, int], strategy: Strategy, verdicts: Verdicts) -> Pair:
    first, second = pair
    if sample.responses[first] == sample.responses[second]:
        return Pair(first, second, **IDENTICAL)
    return strategy.label(sample, pair, verdicts)


def summary(rankings: list[Ranking]) -> dict[str, Any]:
    """Count pairs by status and by outcome, and the answers that ended by themselves.

    `same_position` counts the pairs of `both_orders` in which the same position wins in both orders.
    """
    pairs = [(ranking, pair) for ranking in rankings for pair in ranking.pairs]
    statuses = Counter(pair.status for _, pair in pairs)
    identical = sum(ranking.responses[pair.first] == ranking.responses[pair.second] for ranking, pair in pairs)
    distances = [abs(pair.probability - 0.5) for _, pair in pairs if pair.probability is not None]
    both = [sides for _, pair in pairs if (sides := _both_orders(pair)) is not None]
    stopped = [ranking.stopped(index) for ranking in rankings for index in range(len(ranking.responses))]
    return {
        "prompts": len(rankings),
        "pairs": len(pairs),
        "statuses": dict(sorted(statuses.items())),
        "identical_pairs": identical,
        "decided": sum(distance > 0 for distance in distances),
        "undecided": sum(distance == 0 for distance in distances),
        "both_orders": len(both),
        "same_position": sum(
            (first > 0.5) == (swapped > 0.5) for first, swapped in both if 0.5 not in (first, swapped)
        ),
        "mean_certainty": 2 * sum(distances) / len(distances) if distances else 0.0,  # 0: all 0.5, 1: all 0 or 1
        "fraction_stopped": sum(stopped) / len(stopped) if stopped else 1.0,
    }


def _both_orders(pair: Pair) -> tuple[float, float] | None:
    """Return the mean probability of the answer shown first, in either order; None unless both orders have one."""
    sides = []
    for shown in ("first", "swapped"):
        found = [one.probability for one in pair.verdicts if one.shown == shown and one.probability is not None]
        if not found:
            return None
        sides.append(sum(found) / len(found))
    return sides[0], sides[1]
