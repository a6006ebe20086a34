"""Measures of a reward model's scores on labelled answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.data.rows import USABLE, Pair
from alignment.data.splits import prompt_key
from alignment.evaluate.best_of_n import expected_best, kl_of_best_of_n, powers_of_two
from alignment.evaluate.statistics import agreement, calibration_error, mean_interval, share_interval
from reward.bench.reading import BenchRow

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """A row with the reward model's scores of its answers."""

    row: BenchRow
    scores: list[float]  # one an answer
    tokens: list[int]  # of prompt and answer, as the first member reads them
    spread: list[float]  # standard deviation over the members, 0 for one

    @property
    def pairs(self) -> list[Pair]:
        """The pairs with a usable label."""
        return [pair for pair in self.row.ranking.pairs if pair.status in USABLE and pair.probability is not None]


def pair_measures(rows: Sequence[ScoredRow]) -> dict[str, Any]:
    """Return the agreement of scores and labels over pairs, and its calibration.

    `accuracy` is over the pairs whose label decides; equal scores count one half. `of_longer` is that of the rule that
    the longer answer is better. `nll`, `brier` and `ece` rate the probability sigma(s_1 - s_2) against the label, ties
    included: cross-entropy in nats, squared error, and `calibration_error` with the label in place of votes. `best` is
    over prompts with three or more answers: whether the label prefers no other to the one that the model likes best.
    Intervals are 95 %, by bootstrap over prompts.

    Returns: plain numbers; None if there is nothing to measure.
    """
    columns = [
        (one.scores[p.first] - one.scores[p.second], p.probability, one.tokens[p.first] - one.tokens[p.second])
        for one in rows
        for p in one.pairs
    ]
    prompts = [prompt_key(one.row.ranking) for one in rows for _ in one.pairs]
    gap, label, longer = np.array(columns, dtype=np.float64).reshape(-1, 3).T
    decided = label != 0.5
    clusters = [prompt for prompt, counts in zip(prompts, decided, strict=True) if counts]
    right, right_longer = agreement(gap[decided], label[decided]), agreement(longer[decided], label[decided])
    probability = np.exp(-np.logaddexp(0, -gap))
    accuracy = share_interval(right, clusters) if len(right) else None
    return {
        "prompts": len({prompt_key(one.row.ranking) for one in rows}),
        "pairs": int(decided.sum()),
        "accuracy": accuracy.as_json() if accuracy else None,
        "of_longer": float(right_longer.mean()) if len(right) else None,
        "label_ties": int((~decided).sum()),
        "equal_scores": int((gap[decided] == 0).sum()),
        "nll": _mean(label * np.logaddexp(0, -gap) + (1 - label) * np.logaddexp(0, gap)),
        "brier": _mean((probability - label) ** 2),
        "ece": calibration_error(probability, label) if len(label) else None,
        "score_std_of_members": _mean(np.array([spread for one in rows for spread in one.spread])),
        "best": _best(rows),
    }


def _best(rows: Sequence[ScoredRow]) -> dict[str, Any] | None:
    """Share of prompts whose highest-scored answer no label puts below another; ties at the top are averaged."""
    found, clusters = [], []
    for one in rows:
        compared = {end for pair in one.pairs for end in (pair.first, pair.second)}
        if len(compared) < 3:
            continue
        beaten = {p.second if (p.probability or 0.0) > 0.5 else p.first for p in one.pairs if p.probability != 0.5}
        top = max(one.scores[answer] for answer in compared)
        liked = [answer for answer in compared if one.scores[answer] == top]
        found.append(sum(answer not in beaten for answer in liked) / len(liked))
        clusters.append(prompt_key(one.row.ranking))
    return share_interval(found, clusters).as_json() if found else None


def best_of_n(rows: Sequence[ScoredRow]) -> list[dict[str, Any]]:
    """The curve of best-of-n: expected gold score of the highest-scored of n answers.

    Beside it, at the same n, that of the longest answer, and of the best by gold, which none can surpass. n goes up to
    the fewest answers of a prompt, so that every point is over the same prompts.

    Returns: one object for each n; [] where no row has gold scores.
    """
    known = [(one, one.row.gold) for one in rows if one.row.gold is not None]
    if not known:
        return []
    clusters = [prompt_key(one.row.ranking) for one, _ in known]
    points = []
    for n in powers_of_two(min(len(gold) for _, gold in known)):
        gold = mean_interval([expected_best(one.scores, truth, n) for one, truth in known], clusters)
        points.append(
            {
                "n": n,
                "kl": kl_of_best_of_n(n),
                "prompts": len(known),
                "gold": gold.as_json(),
                "score": float(np.mean([expected_best(one.scores, one.scores, n) for one, _ in known])),
                "gold_of_longest": float(np.mean([expected_best(one.tokens, truth, n) for one, truth in known])),
                "gold_of_best": float(np.mean([expected_best(truth, truth, n) for _, truth in known])),
            }
        )
    return points


def _mean(values: Array) -> float | None:
    return float(values.mean()) if len(values) else None
