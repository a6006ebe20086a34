"""The gap between PPO's score and the watching scorers, against the policy's distance from the reference."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from alignment.evaluate.overoptimization import Fit, fit
from alignment.report.charts import Chart, Point, chart, number
from alignment.report.curves import is_number

PREFIX, SPREAD = "watch_", "_spread"
DRAWN_POINTS = 60  # of a fitted curve
FEWEST = 2  # points that make a chart
REACH = 2.0  # a peak is predicted up to this multiple of the run's largest distance
TRAINS = "what trains"


@dataclass(frozen=True, slots=True)
class Gap:
    """One watching scorer: a chart, and the result of the fit, if there is one."""

    chart: Chart
    claim: str = ""  # "" if the fit is not determined
    evidence: str = ""
    has_turned: bool = False


def gaps(metrics: Sequence[dict[str, Any]]) -> list[Gap]:
    """Return a view of every watcher that a PPO run logged.

    Both scores are drawn as the change since the first update, in standard deviations of that update's answers: the one
    common unit of scores that have none. The distance is sqrt(KL), with 0 for a KL that its noise makes negative.
    """
    keys = {key for row in metrics for key in row if key.startswith(PREFIX) and not key.endswith(SPREAD)}
    return [gap for key in sorted(keys) for gap in _gap(key, metrics)]


def _gap(key: str, metrics: Sequence[dict[str, Any]]) -> Iterator[Gap]:
    name = key.removeprefix(PREFIX)
    rows = [
        row for row in metrics if all(is_number(row.get(k)) for k in (key, key + SPREAD, "score", "score_std", "kl"))
    ]
    if len(rows) < FEWEST:
        return
    distances = [math.sqrt(max(0.0, row["kl"])) for row in rows]
    watched, trained = (_since_first(rows, *keys) for keys in ((key, key + SPREAD), ("score", "score_std")))
    found = fit(distances, watched)
    told = found if found is not None and found.is_determined and found.peak <= REACH * found.furthest else None
    series = [(TRAINS, _sorted(distances, trained)), (name, _sorted(distances, watched))]
    drawn = chart(
        f"Over-optimisation by {name}",
        [*series, *([(f"fit of {name}", _curve(told))] if told else [])],
        "standard deviations, against √KL",
        across="√KL",
        scattered=(TRAINS, name),
    )
    if told is None:
        yield Gap(drawn)
    else:
        yield Gap(drawn, *_words(told, name, trained[-1] - watched[-1]), has_turned=told.has_turned)


def _words(found: Fit, name: str, gap: float) -> tuple[str, str]:
    """A claim about the watcher and its evidence, in standard deviations of the first answers."""
    peak = f"√KL {number(found.peak)}, a KL of {number(found.peak**2)} nats an answer"
    law = f"R(d) = d (α − β ln d) with α {number(found.alpha)} and β {number(found.beta)} ± {number(found.beta_error)}"
    apart = f"At the end what trains has risen {number(gap)} standard deviations more than {name}."
    if found.has_turned:
        gained = found.at(found.peak) - found.start
        since = f"it gained {number(gained)} standard deviations up to there and has lost {number(found.lost)} since"
        remedy = f"Stop there, or hold the KL with adaptive_kl_target: {number(found.peak**2)}."
        return f"{name} has turned down at {peak}", f"{since}, by the fit {law}. {apart} {remedy}"
    if found.peak < found.furthest:
        return (
            f"{name} has stopped rising at {peak}",
            f"what it lost since is within the error of the fit {law}. {apart}",
        )
    went = f"the run went to √KL {number(found.furthest)}"
    return f"{name} still rises", f"{went}, and by the fit {law} it would turn at {peak}. {apart}"


def _since_first(rows: Sequence[dict[str, Any]], mean: str, spread: str) -> list[float]:
    unit = rows[0][spread] or 1.0
    return [(row[mean] - rows[0][mean]) / unit for row in rows]


def _sorted(distances: Sequence[float], values: Sequence[float]) -> list[Point]:
    return sorted(zip(distances, values, strict=True))


def _curve(found: Fit) -> list[Point]:
    steps = [found.furthest * i / DRAWN_POINTS for i in range(DRAWN_POINTS + 1)]
    return [(d, found.at(d)) for d in steps]
