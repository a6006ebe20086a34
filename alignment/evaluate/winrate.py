"""How often a candidate's answer is preferred to the baseline's, judged in both orders."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignment.data.rows import USABLE, Prompt
from alignment.errors import JudgeError
from alignment.evaluate.judging import Comparison, Judge, Verdict, combine
from alignment.evaluate.statistics import Bootstrap, Interval, share_interval, wins

FAILURES_BEFORE_STOPPING = 20  # verdicts before the share of failures is believed


@dataclass(frozen=True, slots=True)
class Judged:
    """A judge's verdicts on pairs of answers, first against second, in the order of the questions."""

    verdicts: list[Verdict]  # both orders combined; `probability` is that the first is better
    consistent: int  # asked pairs in which both orders named the same winner
    asked: int  # pairs put to the judge: identical answers are ties without asking

    @property
    def usable(self) -> list[int]:
        """Indices of the pairs with a verdict; the others failed and count nowhere."""
        return [i for i, verdict in enumerate(self.verdicts) if verdict.status in USABLE]

    def statuses(self) -> dict[str, int]:
        """Pairs by status."""
        return dict(Counter(verdict.status for verdict in self.verdicts))


def judge_pairs(
    judge: Judge[Comparison],
    comparisons: Sequence[Comparison],
    *,
    max_concurrency: int = 8,
    max_failure_share: float = 0.5,
    on_done: Callable[[], None] | None = None,
) -> Judged:
    """Ask about every pair in both orders; a failed call fails its pair and is never a label.

    Args:
        on_done: Called after each pair, for a progress bar.

    Raises: JudgeError if more than `max_failure_share` of the pairs fail, or the judge reports that calls are useless.
    """
    verdicts: list[Verdict] = [Verdict(0.5, "tie", "identical answers")] * len(comparisons)
    to_ask = [i for i, c in enumerate(comparisons) if not c.identical]
    failures = consistent = 0
    pool = ThreadPoolExecutor(max_concurrency)
    try:
        futures: dict[int, Future[tuple[Verdict, bool]]] = {
            i: pool.submit(_both_orders, judge, comparisons[i]) for i in to_ask
        }
        for done, (i, future) in enumerate(futures.items(), 1):
            wait([future], return_when=FIRST_EXCEPTION)
            verdicts[i], agreed = future.result()
            consistent += agreed
            failures += verdicts[i].status not in USABLE
            if done >= FAILURES_BEFORE_STOPPING or done == len(to_ask):
                _refuse_failures(judge, failures, done, max_failure_share, verdicts[i])
            if on_done:
                on_done()
    except JudgeError:
        pool.shutdown(cancel_futures=True)  # waits for the calls in flight, which are paid for
        raise
    finally:
        # Not `with`: on Ctrl-C it would wait for every call in flight.
        pool.shutdown(wait=False, cancel_futures=True)
    return Judged(verdicts, consistent, len(to_ask))


def win_rate(judged: Judged, clusters: Sequence[int], bootstrap: Bootstrap) -> dict[str, Any]:
    """Win rate of the first answers over the second: wins plus half the ties, with its interval.

    Args:
        clusters: (pairs,) the prompt each pair belongs to.

    Returns: plain numbers under plain names; `value`, `low` and `high` are None if no pair has a verdict.
    """
    usable = judged.usable
    probabilities = np.asarray([judged.verdicts[i].probability for i in usable], dtype=np.float64)
    points = wins(probabilities)
    compared = judged.asked - (len(judged.verdicts) - len(usable))
    found = Interval(math.nan, math.nan, math.nan, 0, 0)
    if usable:
        where = [clusters[i] for i in usable]
        found = share_interval(points, where, bootstrap)
    return found.as_json() | {
        "wins": int((points == 1).sum()),
        "ties": int((points == 0.5).sum()),
        "losses": int((points == 0).sum()),
        "mean_probability": float(probabilities.mean()) if usable else None,
        "coverage": len(usable) / len(judged.verdicts) if judged.verdicts else None,
        "identical": len(judged.verdicts) - judged.asked,
        "order_consistency": judged.consistent / compared if compared else None,
        "statuses": judged.statuses(),
    }


def agreement(
    judged: Judged, scores: Sequence[tuple[float, float]], clusters: Sequence[int], bootstrap: Bootstrap
) -> dict[str, Any] | None:
    """Share of the judge's decided pairs that a reward model's scores order the same way.

    Ties of the judge are left out; equal scores count one half.

    Returns: None if the judge decided no pair.
    """
    decided = [i for i in judged.usable if judged.verdicts[i].probability != 0.5]
    if not decided:
        return None
    correct = []
    for i in decided:
        first, second = scores[i]
        prefers_first = (judged.verdicts[i].probability or 0.0) > 0.5
        correct.append(0.5 if first == second else float((first > second) == prefers_first))
    where = [clusters[i] for i in decided]
    return share_interval(correct, where, bootstrap).as_json()


def comparisons(prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> list[Comparison]:
    """Pair up answers to the same prompts."""
    return [Comparison(p, a, b) for p, a, b in zip(prompts, first, second, strict=True)]


def _both_orders(judge: Judge[Comparison], comparison: Comparison) -> tuple[Verdict, bool]:
    """Ask in both orders; returns the combined verdict and whether the two named the same winner."""
    forward = judge.ask(comparison)
    if forward.status not in USABLE:
        return forward, False  # the pair has failed; the other order could not change that
    backward = judge.ask(comparison.swapped())
    verdict = combine(forward, backward)
    if verdict.probability is None or forward.probability is None or backward.probability is None:
        return verdict, False
    return verdict, bool(wins(forward.probability) == 1 - wins(backward.probability))


def _refuse_failures(judge: Judge[Comparison], failures: int, done: int, limit: float, last: Verdict) -> None:
    if failures / done > limit:
        raise JudgeError(
            f"judge {judge.name}: {failures} of {done} pairs failed, more than max_failure_share {limit:g} allows; "
            f"the last one {last.status}: {last.raw[:200] or 'no text'}. Correct the judge, or raise max_failure_share."
        )
