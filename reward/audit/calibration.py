"""Calibration errors of a judge's probabilities, and maps fitted on people's votes that reduce them.

The order of the answers is arbitrary, so a map f has f(1 - p) = 1 - f(p): it is fitted on every comparison and its
mirror image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss, log_loss
from sklearn.model_selection import GroupKFold

from alignment.data.rows import Pair, Ranking
from alignment.errors import DataError
from alignment.evaluate.statistics import (
    CALIBRATION_BINS,
    Bootstrap,
    calibration_error,
    calibration_errors,
    calibration_sums,
    mean_interval,
    sums_interval,
)
from reward.audit.against import Match

Array = NDArray[np.float64]
Method = Literal["temperature", "isotonic"]
CLIP = (
    1e-3  # bound of probabilities from 0 and 1 before their logarithm, so that one error of full confidence is finite
)
COLDEST, HOTTEST = (
    0.02,
    50.0,
)  # bounds of the temperature, which would grow without limit for a judge that people contradict
FOLDS = 5
FEWEST = 20  # matched comparisons needed for a fit


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted map from the judge's probability to a calibrated one."""

    method: Method
    parameters: dict[str, Any]  # temperature: {"temperature": T}; isotonic: {"x": [...], "y": [...]}
    comparisons: int  # it was fitted on
    prompts: int

    def apply(self, probabilities: Array) -> Array:
        """Return calibrated probabilities; one half stays one half."""
        p = np.asarray(probabilities, dtype=np.float64)
        if self.method == "temperature":
            return np.where(p == 0.5, 0.5, expit(_logit(p) / self.parameters["temperature"]))
        return np.interp(p, self.parameters["x"], self.parameters["y"])

    def on(self, rankings: Sequence[Ranking]) -> list[Ranking]:
        """Return labels with calibrated probabilities; the original ones stay in each pair's verdicts."""
        return [
            replace(
                ranking,
                pairs=[self._pair(pair) for pair in ranking.pairs],
                provenance={**ranking.provenance, "calibration": self.as_json()},
            )
            for ranking in rankings
        ]

    def _pair(self, pair: Pair) -> Pair:
        if pair.probability is None:
            return pair
        probability = float(self.apply(np.asarray([pair.probability]))[0])
        return replace(pair, probability=probability, status="tie" if probability == 0.5 else "ok")

    def as_json(self) -> dict[str, Any]:
        """Return the record beside the labels and in each row's provenance."""
        return {"method": self.method, **self.parameters, "comparisons": self.comparisons, "prompts": self.prompts}


def fit(probabilities: Array, shares: Array, clusters: Sequence[str], method: Method) -> Calibration:
    """Fit a map on comparisons with people's votes.

    Temperature: sigmoid(logit(p) / T) with the T that minimises the negative log-likelihood, section 4.2 of
    https://arxiv.org/abs/1706.04599; it never changes which answer wins. Isotonic: the monotone steps of least squares
    (Zadrozny & Elkan 2002), which need some hundreds of comparisons.

    Args:
        probabilities: (n,) of the judge that the first is better. shares: (n,) of people's votes for it, ties half.
    """
    if method == "temperature":
        logits = _logit(probabilities)

        def loss(log_temperature: float) -> float:
            return _nll(shares, expit(logits / math.exp(log_temperature)))

        found = minimize_scalar(loss, bounds=(math.log(COLDEST), math.log(HOTTEST)), method="bounded")
        parameters: dict[str, Any] = {"temperature": float(math.exp(found.x))}
    else:
        mirrored = np.concatenate([probabilities, 1 - probabilities])
        steps = IsotonicRegression(y_min=CLIP, y_max=1 - CLIP, out_of_bounds="clip")
        steps.fit(mirrored, np.concatenate([shares, 1 - shares]))
        parameters = {"x": steps.X_thresholds_.tolist(), "y": steps.y_thresholds_.tolist()}
    return Calibration(method, parameters, len(probabilities), len(set(clusters)))


def fit_matches(found: Sequence[Match], method: Method) -> Calibration:
    """Fit a map on the comparisons that people voted on.

    Raises: DataError if they are too few.
    """
    p, shares, clusters = _observed(found)
    if len(p) < FEWEST or len(set(clusters)) < 2:
        raise DataError(
            f"a calibration needs at least {FEWEST} comparisons of two or more prompts with people's votes, and "
            f"{len(p)} of {len(set(clusters))} match the labels; let people annotate more (`--suggest N`)."
        )
    return fit(p, shares, clusters, method)


def crossfitted(p: Array, shares: Array, clusters: Sequence[str], method: Method) -> Array:
    """Return calibrated probabilities, each prompt's from a map fitted on other prompts (cross-fitting)."""
    groups = np.unique(np.asarray(clusters), return_inverse=True)[1]
    after = np.empty_like(p)
    for train, test in GroupKFold(min(FOLDS, len(set(clusters)))).split(p, groups=groups):
        after[test] = fit(p[train], shares[train], [clusters[i] for i in train], method).apply(p[test])
    return after


def calibration(found: Sequence[Match], how: Bootstrap) -> dict[str, Any] | None:
    """ECE, Brier score and NLL of the judge's probabilities, before and after each map, and the reliability diagram.

    "After" is cross-fitted over prompts, so it estimates the error on new labels; the map itself is fitted on all. None
    without matches.
    """
    p, shares, clusters = _observed(found)
    if not len(p):
        return None
    result: dict[str, Any] = {"comparisons": len(p), "before": _errors(p, shares, clusters, how)}
    result["reliability"] = reliability(p, shares)
    if len(p) < FEWEST or len(set(clusters)) < 2:
        return result
    for method in ("temperature", "isotonic"):
        after = crossfitted(p, shares, clusters, method)
        fitted = fit(p, shares, clusters, method).as_json()
        result[method] = {"fitted": fitted, "after": _errors(after, shares, clusters, how),
                          "reliability": reliability(after, shares)}  # fmt: skip
    return result


def reliability(p: Array, shares: Array, bins: int = CALIBRATION_BINS) -> list[dict[str, float]]:
    """The reliability diagram: mean confidence and accuracy in bins of equal width over [0.5, 1].

    Confidence is max(p, 1 - p), accuracy the share of people's votes for the answer that the judge prefers; figure 1
    of https://arxiv.org/abs/1706.04599 for two classes. A probability of one half is right half the time.
    """
    counted, confident, right = calibration_sums(p, shares, bins).sum(axis=0).reshape(3, bins)
    return [
        {"confidence": confident[b] / counted[b], "accuracy": right[b] / counted[b], "n": int(counted[b])}
        for b in range(bins) if counted[b]
    ]  # fmt: skip


def brier(p: Array, shares: Array) -> float:
    """Brier score: mean over votes of (p - vote)^2 (Brier 1950); a tie is half a vote for each side."""
    outcomes, doubled, weights = _votes(p, shares)
    return float(brier_score_loss(outcomes, doubled, sample_weight=weights, pos_label=1))


def _nll(shares: Array, p: Array) -> float:
    clipped = np.clip(p, CLIP, 1 - CLIP)
    return float(-np.mean(shares * np.log(clipped) + (1 - shares) * np.log1p(-clipped)))


def nll(p: Array, shares: Array) -> float:
    """Negative log-likelihood of the votes in nats, probabilities `CLIP` from 0 and 1 at least; p = 0.5 has ln 2."""
    outcomes, doubled, weights = _votes(p, shares)
    return float(log_loss(outcomes, np.clip(doubled, CLIP, 1 - CLIP), sample_weight=weights, labels=[0, 1]))


def _votes(p: Array, shares: Array) -> tuple[NDArray[np.int64], Array, Array]:
    """Every comparison as a vote for the first and one against it, weighted by how many people cast them."""
    outcomes = np.concatenate([np.ones(len(p), dtype=np.int64), np.zeros(len(p), dtype=np.int64)])
    return outcomes, np.concatenate([p, p]), np.concatenate([shares, 1 - shares])


def _errors(p: Array, shares: Array, clusters: Sequence[str], how: Bootstrap) -> dict[str, Any]:
    clipped = np.clip(p, CLIP, 1 - CLIP)
    squares = shares * (p - 1) ** 2 + (1 - shares) * p**2
    logs = -(shares * np.log(clipped) + (1 - shares) * np.log1p(-clipped))

    def interval(values: Array, value: float) -> dict[str, Any]:
        return mean_interval(values, clusters, how).as_json() | {"value": value}

    error = sums_interval(calibration_sums(p, shares), clusters, calibration_errors, how)
    return {
        "ece": error.as_json() | {"value": calibration_error(p, shares)},
        "brier": interval(squares, brier(p, shares)),
        "nll": interval(logs, nll(p, shares)),
    }


def _observed(found: Sequence[Match]) -> tuple[Array, Array, list[str]]:
    usable = [match for match in found if match.item.usable]
    p = np.asarray([match.item.probability for match in usable], dtype=np.float64)
    return p, np.asarray([match.share for match in usable]), [match.item.cluster for match in usable]


def _logit(p: Array) -> Array:
    return np.asarray(logit(np.clip(p, CLIP, 1 - CLIP)), dtype=np.float64)
