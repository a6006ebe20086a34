"""Means and shares with honest intervals.

Answers to one prompt are not independent, so every interval resamples prompts (clusters), never single answers:
section 2.2 of https://arxiv.org/abs/2411.00640 shows how far the naive interval can be off.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

CALIBRATION_BINS = 10
DRAWS_AT_ONCE = 4_000_000  # cluster counts held in memory together, 8 bytes each


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How intervals are computed: confidence level, number of resamplings, seed."""

    level: float = 0.95  # leaves 2.5 % on each side
    samples: int = 2_000
    seed: int = 0


DEFAULT = Bootstrap()


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the ends of its confidence interval; the ends are NaN where one cluster cannot give any."""

    value: float
    low: float
    high: float
    n: int  # observations
    clusters: int  # prompts

    def as_json(self) -> dict[str, Any]:
        """Return plain numbers, None for what is not finite."""
        ends = {"value": self.value, "low": self.low, "high": self.high}
        return {k: v if math.isfinite(v) else None for k, v in ends.items()} | {"n": self.n, "clusters": self.clusters}


def mean_interval(
    values: ArrayLike,
    clusters: Sequence[Hashable] | ArrayLike,
    bootstrap: Bootstrap = DEFAULT,
) -> Interval:
    """Mean over observations with a percentile bootstrap interval (Efron 1979) that resamples whole clusters.

    Args:
        values: (n,) numbers. clusters: (n,) what each belongs to, the prompt.

    Raises: ValueError if nothing was observed or the lengths differ.
    """
    sums, counts = _cluster_totals(np.asarray(values, dtype=np.float64), clusters)
    value = float(sums.sum() / counts.sum())
    if len(sums) == 1:
        return Interval(value, math.nan, math.nan, int(counts.sum()), 1)
    totals = np.stack([sums, counts], axis=1)
    low, high = _quantiles(_resampled(totals, lambda drawn: drawn[:, 0] / drawn[:, 1], bootstrap), bootstrap.level)
    return Interval(value, low, high, int(counts.sum()), len(sums))


def share_interval(
    values: ArrayLike,
    clusters: Sequence[Hashable] | ArrayLike,
    bootstrap: Bootstrap = DEFAULT,
) -> Interval:
    """Like `mean_interval` for values in [0, 1], for example whether an answer is correct; 0.5 for equal scores.

    Where resampling cannot vary (one cluster, or every cluster with the same mean: 40 wins of 40) the bootstrap would
    claim certainty; there the interval is Wilson's with each cluster as a single trial.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size and (array.min() < 0 or array.max() > 1):
        raise ValueError(f"shares lie between 0 and 1, found {array.min():g} to {array.max():g}")
    sums, counts = _cluster_totals(array, clusters)
    if np.ptp(sums / counts) > 0:
        return mean_interval(array, clusters, bootstrap)
    value = float(sums.sum() / counts.sum())
    low, high = wilson(value * len(sums), len(sums), bootstrap.level)
    return Interval(value, low, high, int(counts.sum()), len(sums))


def sums_interval(
    columns: ArrayLike,
    clusters: Sequence[Hashable] | ArrayLike,
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    bootstrap: Bootstrap = DEFAULT,
) -> Interval:
    """A statistic that is a function of sums over observations, with an interval as `mean_interval` has.

    Cohen's kappa is one, of the counts in its table; resampling sums is as exact as resampling rows, and much faster.

    Args:
        columns: (n, k) what each observation adds to the k sums.
        statistic: takes (resamplings, k) sums, returns (resamplings,) values, NaN where it is not defined.
    """
    sums, counts = _column_totals(columns, clusters)
    value, size = float(statistic(sums.sum(axis=0, keepdims=True))[0]), len(sums)
    drawn = _resampled(sums, statistic, bootstrap)
    drawn = drawn[np.isfinite(drawn)]
    if size == 1 or not len(drawn) or np.ptp(drawn) == 0:  # resampling that cannot vary would claim certainty
        return Interval(value, math.nan, math.nan, int(counts.sum()), size)
    return Interval(value, *_quantiles(drawn, bootstrap.level), int(counts.sum()), size)


@dataclass(frozen=True, slots=True)
class Resampled:
    """An estimate with its values on resamplings, so that means of independent estimates have intervals too."""

    value: float
    draws: NDArray[np.float64]  # (resamplings,)
    n: int  # observations
    clusters: int

    def as_json(self, level: float = 0.95) -> dict[str, Any]:
        """Return the estimate and its percentile interval as `Interval.as_json` does."""
        drawn = self.draws[np.isfinite(self.draws)]
        ends = _quantiles(drawn, level) if len(drawn) and math.isfinite(self.value) else (math.nan, math.nan)
        return Interval(self.value, *ends, self.n, self.clusters).as_json()


def resampled(
    columns: ArrayLike,
    clusters: Sequence[Hashable] | ArrayLike,
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    bootstrap: Bootstrap = DEFAULT,
) -> Resampled:
    """A score in [0, 1] as a function of sums, as in `sums_interval`, with its values on resamplings.

    Where resampling cannot vary (one cluster, or all of them right), the values are drawn from the posterior of a share
    with each cluster as a trial, under Jeffreys' prior: section 4.1 of Brown, Cai and DasGupta 2001,
    https://doi.org/10.1214/ss/1009213286.
    """
    sums, counts = _column_totals(columns, clusters)
    value = float(statistic(sums.sum(axis=0, keepdims=True))[0])
    drawn = _resampled(sums, statistic, bootstrap)
    if math.isfinite(value) and np.ptp(drawn[np.isfinite(drawn)]) == 0:
        right = min(max(value, 0.0), 1.0) * len(sums)
        generator = np.random.default_rng(bootstrap.seed)
        drawn = generator.beta(right + 0.5, len(sums) - right + 0.5, size=bootstrap.samples)
    return Resampled(value, drawn, int(counts.sum()), len(sums))


def weighted_mean(parts: Sequence[Resampled], weights: Sequence[float]) -> Resampled:
    """Mean of estimates from independent observations; each must have been resampled with a seed of its own."""
    value = np.average([part.value for part in parts], weights=weights)
    draws = np.average([part.draws for part in parts], axis=0, weights=weights)
    return Resampled(float(value), draws, sum(part.n for part in parts), sum(part.clusters for part in parts))


def wilson(successes: float, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval for a share of independent trials, eq. 4 of Wilson 1927 (JASA 22, 209-212)."""
    if trials <= 0 or not 0 <= successes <= trials:
        raise ValueError(f"{successes} successes in {trials} trials: needs 0 <= successes <= trials and trials > 0")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return 0.0 if successes == 0 else centre - half, 1.0 if successes == trials else centre + half


def wins(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Turn each pair's probability into 1 (win), 0.5 (tie, exactly one half) or 0 (loss).

    The win rate counts verdicts, as published win rates do; how sure the judge was is the mean probability, which is
    reported beside it.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    return np.where(p > 0.5, 1.0, np.where(p < 0.5, 0.0, 0.5))


def agreement(gap: ArrayLike, label: ArrayLike) -> NDArray[np.float64]:
    """Return 1 where the sign of `gap` is that of the label less one half, 0 if not, one half where `gap` is zero.

    Args:
        gap: (n,) differences of scores. label: (n,) probabilities that the first is better, none of them one half.
    """
    gap, label = np.asarray(gap, dtype=np.float64), np.asarray(label, dtype=np.float64)
    return np.where(gap == 0, 0.5, (gap > 0) == (label > 0.5)).astype(np.float64)


def calibration_error(probability: ArrayLike, share: ArrayLike, bins: int = CALIBRATION_BINS) -> float:
    """Return the expected calibration error, sum over bins of n_b / n |accuracy_b - confidence_b|.

    Guo et al. 2017, eq. 3 of https://arxiv.org/abs/1706.04599, for two classes: confidence is max(p, 1 - p), in bins of
    equal width over [0.5, 1]; accuracy is the share of votes for the answer that the probability prefers.

    Args:
        probability: (n,) that the first is better. share: (n,) of votes for it, ties half, or a soft label.
    """
    return float(calibration_errors(calibration_sums(probability, share, bins).sum(axis=0, keepdims=True))[0])


def calibration_sums(probability: ArrayLike, share: ArrayLike, bins: int = CALIBRATION_BINS) -> NDArray[np.float64]:
    """Return what each comparison adds to its bin: one, its confidence, and how far it is right; (n, 3 * bins)."""
    p, votes = np.asarray(probability, dtype=np.float64), np.asarray(share, dtype=np.float64)
    confidence = np.maximum(p, 1 - p)
    right = np.where(p > 0.5, votes, np.where(p < 0.5, 1 - votes, 0.5))
    place = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    added = np.zeros((len(p), 3, bins))
    for row, values in enumerate((np.ones(len(p)), confidence, right)):
        added[np.arange(len(p)), row, place] = values
    return added.reshape(len(p), 3 * bins)


def calibration_errors(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the calibration error of each row of summed `calibration_sums`; (n, 3 * bins) gives (n,)."""
    counted, confident, right = np.moveaxis(sums.reshape(len(sums), 3, -1), 1, 0)
    return np.asarray(np.abs(right - confident).sum(axis=1) / counted.sum(axis=1))


def _cluster_totals(
    values: NDArray[np.float64], clusters: Sequence[Hashable] | ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and number of observations per cluster, in order of first appearance."""
    keys: list[Any] = clusters.tolist() if isinstance(clusters, np.ndarray) else list(clusters)  # type: ignore[arg-type]
    if values.ndim != 1 or len(keys) != len(values):
        raise ValueError(f"values of shape {values.shape} need one cluster each, found {len(keys)}")
    if not keys:
        raise ValueError("nothing was observed: a mean needs at least one value")
    index: dict[Hashable, int] = {}
    inverse = np.asarray([index.setdefault(key, len(index)) for key in keys])
    return np.bincount(inverse, weights=values).astype(np.float64), np.bincount(inverse).astype(np.float64)


def _column_totals(
    columns: ArrayLike, clusters: Sequence[Hashable] | ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of each column per cluster, (clusters, k), and the number of observations per cluster."""
    array = np.asarray(columns, dtype=np.float64)
    totals = [_cluster_totals(column, clusters) for column in array.T]
    return np.stack([sums for sums, _ in totals], axis=1), totals[0][1]


def _resampled(
    totals: NDArray[np.float64], statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]], bootstrap: Bootstrap
) -> NDArray[np.float64]:
    """Evaluate a statistic of sums on resamplings of the clusters with replacement.

    Args:
        totals: (clusters, k) sums over each cluster. statistic: takes (resamplings, k) sums, returns (resamplings,).
    """
    size, samples = len(totals), bootstrap.samples
    generator = np.random.default_rng(bootstrap.seed)
    chunk = max(1, DRAWS_AT_ONCE // size)
    found = []
    for start in range(0, samples, chunk):
        weights = generator.multinomial(size, np.full(size, 1 / size), size=min(chunk, samples - start))
        found.append(statistic(weights @ totals))
    return np.concatenate(found)


def _quantiles(means: NDArray[np.float64], level: float) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
