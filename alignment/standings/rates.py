"""Win rates of one model over another, with standard errors and intervals."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.evaluate.statistics import Bootstrap, share_interval, wins
from alignment.standings.battles import Battle, Match


def rates(match: Match, how: Bootstrap) -> dict[str, Any]:
    """Return the win rates of a match as plain numbers, shares of 1; None where no judgement is usable.

    `win_rate` is soft: the mean probability that the first model's answer is better, as AlpacaEval's weighted
    annotators count. `discrete_win_rate` counts a probability above one half as a win and exactly one half as half a
    win. `standard_error` is that of the soft rate over rows, s / sqrt(n), as AlpacaEval's leaderboards print; the
    intervals resample prompts. `correct` is the share of labelled pairs whose better answer the judge prefers.
    """
    usable = [battle for battle in match.battles if battle.usable]
    statuses = Counter(battle.status for battle in match.battles)
    points = wins(probabilities(usable))
    found: dict[str, Any] = {
        "judge": match.judge,
        "model": match.first,
        "baseline": match.second,
        "n": len(usable),
        "prompts": len({battle.cluster for battle in usable}),
        "win_rate": _share(probabilities(usable), usable, how),
        "standard_error": standard_error(probabilities(usable)),
        "discrete_win_rate": _share(points, usable, how),
        "wins": int((points == 1).sum()),
        "draws": int((points == 0.5).sum()),
        "losses": int((points == 0).sum()),
        "failed": len(match.battles) - len(usable),
        "statuses": dict(sorted(statuses.items())),
        "orders": dict(sorted(Counter(battle.orders for battle in usable).items())),
        "order_consistency": _consistency(usable, how),
        "length": mean_lengths(match.battles),
        "correct": _correct(match.battles, how),
    }
    return found


def by_subset(match: Match, how: Bootstrap) -> dict[str, dict[str, Any]]:
    """Return the win rates of each subset; nothing where all judgements are of one subset."""
    subsets = sorted({battle.subset for battle in match.battles})
    if len(subsets) < 2:
        return {}
    found = {}
    for subset in subsets:
        rows = tuple(battle for battle in match.battles if battle.subset == subset)
        found[subset or "no subset"] = rates(Match(match.judge, match.first, match.second, rows), how)
    return found


def probabilities(battles: Sequence[Battle]) -> NDArray[np.float64]:
    """Return the probabilities of usable judgements, (n,)."""
    return np.asarray([battle.probability for battle in battles], dtype=np.float64)


def standard_error(values: NDArray[np.float64]) -> float | None:
    """Return the standard error of a mean, s / sqrt(n) with n - 1 in s; None for fewer than two values."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def mean_lengths(battles: Sequence[Battle]) -> dict[str, float] | None:
    """Return the mean characters of both models' answers; None where one answer's length is not known."""
    lengths = [battle.lengths for battle in battles]
    known = [pair for pair in lengths if pair is not None]
    if not known or len(known) < len(lengths):
        return None
    first, second = np.mean(known, axis=0)
    return {"model": float(first), "baseline": float(second)}


def _share(values: NDArray[np.float64], battles: Sequence[Battle], how: Bootstrap) -> dict[str, Any] | None:
    if not battles:
        return None
    return share_interval(values, [battle.cluster for battle in battles], how).as_json()


def _consistency(usable: Sequence[Battle], how: Bootstrap) -> dict[str, Any] | None:
    """Return the share of pairs shown in both orders whose two verdicts name the same winner."""
    asked = [battle for battle in usable if battle.consistent is not None]
    return _share(np.asarray([float(bool(battle.consistent)) for battle in asked]), asked, how)


def _correct(battles: Sequence[Battle], how: Bootstrap) -> dict[str, Any] | None:
    """Return the share of labelled pairs in which the judge prefers the labelled answer; no verdict is not correct."""
    labelled = [battle for battle in battles if battle.correct is not None and battle.correct != 0.5]
    right = [
        float(battle.usable and (battle.probability or 0.0) != 0.5
              and ((battle.probability or 0.0) > 0.5) == ((battle.correct or 0.0) > 0.5))
        for battle in labelled
    ]  # fmt: skip
    return _share(np.asarray(right), labelled, how)
