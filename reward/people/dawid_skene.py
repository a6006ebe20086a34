"""Accuracies of labellers, estimated from their agreement: Dawid and Skene, https://doi.org/10.2307/2346806.

Every pair has a hidden truth (the first is better, the second is, or neither) and every labeller a confusion matrix:
how often it says what when the truth is what. Both are estimated together by expectation maximisation, without gold.

Three things differ from the paper. Which answer of a pair is called first is chance, so matrices do not change when
first and second change places: a labeller has the probabilities of right, wrong and tie where one answer is better, and
of tie where neither is. A label may be a distribution over what the labeller would say, a judge's probability; its
likelihood under a truth is then the matrix's row weighted by it, so a labeller that is always right hands its
probability on as it stands, and one that is right half the time adds nothing. And a prior, as strong as a few labels,
keeps estimates from few labels away from 0 and 1.

Agreement alone does not tell labellers that are right together from labellers that err on the same items: the estimate
sides with the majority. Gold labels of some pairs anchor it: their truth is known, and the search also begins from the
matrices that they show, and keeps the likelier of the two results.

That neither is better can be the truth only where somebody ever says so: otherwise nothing would tell such pairs from
those that labellers err on.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

FIRST, SECOND, TIE = 0, 1, 2
# The prior's mean for a labeller and for pairs. It also resolves the one ambiguity that data cannot: whether all
# labellers are right or all are wrong.
BETTER = np.array([0.7, 0.2, 0.1])  # right, wrong, tie, where one answer is better
NEITHER = 0.5  # tie, where neither is
TIES = 0.1  # share of pairs where neither is better
SMOOTHING = 10.0  # labels that the prior weighs as much as, for each row of a matrix and for the share of ties
SMALLEST = 1e-300  # in place of a probability of 0, before the logarithm
TOLERANCE = 1e-9
TOLERANCE_OF_RESAMPLES = 1e-6  # the bounds of an interval are accurate to about a percent
MOST_STEPS = 5000
ENOUGH_GOLD = 10  # pairs with gold that tell a labeller's accuracy


@dataclass(frozen=True, slots=True)
class Labels:
    """Every label: which pair, which labeller, and a distribution over first, second and tie."""

    pair: Integers  # (labels,)
    labeller: Integers  # (labels,)
    outcomes: Floats  # (labels, 3), rows sum to one
    pairs: int
    labellers: int
    gold: Integers | None = None  # (pairs,): the known truth, or -1; None: of no pair


@dataclass(frozen=True, slots=True)
class Estimate:
    """The result of expectation maximisation."""

    truth: Floats  # (pairs, 3): the posterior of first, second, tie
    better: Floats  # (labellers, 3): right, wrong, tie, where one answer is better
    neither: Floats  # (labellers,): tie, where neither is
    ties: float  # share of pairs where neither is better
    log_posterior: float  # of the parameters, up to a constant
    steps: int
    converged: bool

    @property
    def accuracy(self) -> Floats:
        """(labellers,): of the verdicts for one of two answers where one is better, the share for that one."""
        right, wrong = self.better[:, 0], self.better[:, 1]
        return right / (right + wrong)


def estimate(
    labels: Labels,
    *,
    smoothing: float = SMOOTHING,
    weights: Floats | None = None,
    start: Estimate | None = None,
    tolerance: float = TOLERANCE,
) -> Estimate:
    """Return the maximum a posteriori parameters and the posterior of every pair's truth.

    Args:
        labels: of n pairs by m labellers. smoothing: weight of the prior, in labels; 0 is maximum likelihood.
        weights: (pairs,), how often each counts; None: once.
        start: parameters to begin from; None: the prior's mean, under which the first step is a majority vote.
        tolerance: where a step gains less of the log posterior a pair, it ends.
    """
    weights = np.ones(labels.pairs) if weights is None else weights
    if start is None:
        start = _prior(labels)
        if labels.gold is not None:
            by_gold = _of_gold(labels, start, weights, smoothing)
            found = [_climb(labels, each, weights, smoothing, tolerance) for each in (start, by_gold)]
            return max(found, key=lambda each: each.log_posterior)
    return _climb(labels, start, weights, smoothing, tolerance)


def _prior(labels: Labels) -> Estimate:
    better = np.tile(BETTER, (labels.labellers, 1))
    gold_ties = labels.gold is not None and (labels.gold == TIE).any()
    ties = TIES if labels.outcomes[:, TIE].any() or gold_ties else 0.0
    return Estimate(np.empty((0, 3)), better, np.full(labels.labellers, NEITHER), ties, -np.inf, 0, False)


def _of_gold(labels: Labels, start: Estimate, weights: Floats, smoothing: float) -> Estimate:
    """Return the parameters that the pairs with gold alone give."""
    known = np.zeros(labels.pairs) if labels.gold is None else (labels.gold >= 0).astype(np.float64)
    truth, likelihood, _ = _expect(labels, start, weights * known, smoothing)
    return _maximise(labels, replace(start, truth=truth), likelihood, weights * known, smoothing)


def how_likely(labels: Labels, found: Estimate, labeller: int, accuracy: float, *, smoothing: float) -> float:
    """Return the p-value of a likelihood-ratio test that a labeller's accuracy is `accuracy`, or beyond it.

    Twice the loss of log posterior, where the accuracy is held there and all else is estimated anew, has the
    chi-squared distribution of one degree of freedom; of a test of one side, half counts. It holds as far as the model
    does: where labellers err independently of each other.

    Args:
        found: the estimate, whose accuracy is on the other side.
    """
    pinned = labeller, accuracy
    starts = [replace(start, better=_pinned(start.better, pinned)) for start in (found, _prior(labels))]
    weights = np.ones(labels.pairs)
    held = max(
        _climb(labels, start, weights, smoothing, TOLERANCE_OF_RESAMPLES, pinned).log_posterior for start in starts
    )
    return math.erfc(math.sqrt(max(0.0, found.log_posterior - held))) / 2


def _pinned(better: Floats, pinned: tuple[int, float]) -> Floats:
    """Return matrices of which one labeller's has an accuracy, with its ties as they are."""
    labeller, accuracy = pinned
    rows = better.copy()
    decided = 1 - rows[labeller, 2]
    rows[labeller, :2] = decided * accuracy, decided * (1 - accuracy)
    return rows


def _climb(
    labels: Labels,
    start: Estimate,
    weights: Floats,
    smoothing: float,
    tolerance: float,
    pinned: tuple[int, float] | None = None,
) -> Estimate:
    """Return the estimate that expectation maximisation reaches from a start; `pinned` holds a labeller's accuracy."""
    now = replace(start, log_posterior=-np.inf, converged=False)
    for step in range(1, MOST_STEPS + 1):
        truth, likelihood, log_posterior = _expect(labels, now, weights, smoothing)
        gained = (log_posterior - now.log_posterior) / max(weights.sum(), 1.0)
        now = replace(now, truth=truth, log_posterior=log_posterior, steps=step)
        if gained < tolerance:
            return replace(now, converged=True)
        now = _maximise(labels, now, likelihood, weights, smoothing)
        if pinned is not None:
            now = replace(now, better=_pinned(now.better, pinned))
    return now


def _expect(labels: Labels, now: Estimate, weights: Floats, smoothing: float) -> tuple[Floats, Floats, float]:
    """The truth's posterior (pairs, 3), each label's likelihood under each truth (labels, 3), the log posterior."""
    likelihood = np.maximum(np.einsum("lo,lto->lt", labels.outcomes, _matrices(now)[labels.labeller]), SMALLEST)
    joint = np.tile(_log([(1 - now.ties) / 2, (1 - now.ties) / 2, now.ties]), (labels.pairs, 1))
    joint += _sums(np.log(likelihood), labels.pair, labels.pairs)
    if labels.gold is not None:
        known = np.flatnonzero(labels.gold >= 0)
        others = np.ones((len(known), 3), dtype=bool)
        others[np.arange(len(known)), labels.gold[known]] = False
        joint[known] = np.where(others, -np.inf, joint[known])
    highest = joint.max(axis=1, keepdims=True)
    evidence = highest[:, 0] + np.log(np.exp(joint - highest).sum(axis=1))
    truth = np.exp(joint - evidence[:, None])
    prior = (BETTER * _log(now.better)).sum()
    if now.ties:
        prior += (NEITHER * _log(now.neither) + (1 - NEITHER) * _log(1 - now.neither)).sum()
        prior += TIES * _log(now.ties) + (1 - TIES) * _log(1 - now.ties)
    return truth, likelihood, float(weights @ evidence + smoothing * prior)


def _maximise(labels: Labels, now: Estimate, likelihood: Floats, weights: Floats, smoothing: float) -> Estimate:
    """Return the parameters for expected counts, with the prior's counts added (M step)."""
    share = (weights[:, None] * now.truth)[labels.pair] / likelihood  # (labels, truths)
    expected = (
        share[:, :, None] * labels.outcomes[:, None, :] * _matrices(now)[labels.labeller]
    )  # (labels, truths, outcomes)
    counts = _sums(expected.reshape(-1, 9), labels.labeller, labels.labellers).reshape(-1, 3, 3)
    decided = np.stack(
        [
            counts[:, FIRST, FIRST] + counts[:, SECOND, SECOND],
            counts[:, FIRST, SECOND] + counts[:, SECOND, FIRST],
            counts[:, FIRST, TIE] + counts[:, SECOND, TIE],
        ],
        axis=1,
    )
    return replace(
        now,
        better=_share(decided + smoothing * BETTER, now.better),
        neither=_share(
            np.stack([counts[:, TIE, TIE], counts[:, TIE, FIRST] + counts[:, TIE, SECOND]], axis=1)
            + smoothing * np.array([NEITHER, 1 - NEITHER]),
            np.stack([now.neither, 1 - now.neither], axis=1),
        )[:, 0],
        ties=float((weights @ now.truth[:, TIE] + smoothing * TIES) / (weights.sum() + smoothing)) if now.ties else 0.0,
    )


def _sums(values: Floats, groups: Integers, count: int) -> Floats:
    """Sums of rows by group, (count, columns)."""
    return np.stack([np.bincount(groups, column, minlength=count) for column in values.T], axis=1)


def _log(values: Any) -> Floats:
    return np.log(np.maximum(values, SMALLEST))


def _share(counts: Floats, before: Floats) -> Floats:
    """Normalise each row of counts; a row of zeros is unchanged."""
    total = counts.sum(axis=1, keepdims=True)
    return np.where(total > 0, counts / np.where(total > 0, total, 1.0), before)


def _matrices(now: Estimate) -> Floats:
    """(labellers, truths, outcomes), rows summing to one."""
    right, wrong, tie = now.better.T
    apart = (1 - now.neither) / 2
    rows = [[right, wrong, tie], [wrong, right, tie], [apart, apart, now.neither]]
    return np.moveaxis(np.array(rows), 2, 0)


def bootstrap_accuracy(
    labels: Labels, clusters: Integers, found: Estimate, *, smoothing: float = SMOOTHING, samples: int, seed: int
) -> Floats:
    """Return 95 % percentile intervals of every labeller's accuracy, resampling whole prompts.

    Args:
        clusters: (pairs,), the number of each pair's prompt, from 0. found: the estimate on all labels.
    Returns: (labellers, 2).
    """
    generator = np.random.default_rng(seed)
    prompts = int(clusters.max()) + 1
    drawn = np.empty((samples, labels.labellers))
    for sample in range(samples):
        times = np.bincount(generator.integers(prompts, size=prompts), minlength=prompts)
        weights = times[clusters].astype(np.float64)
        again = estimate(labels, smoothing=smoothing, weights=weights, start=found, tolerance=TOLERANCE_OF_RESAMPLES)
        drawn[sample] = again.accuracy
    return np.quantile(drawn, [0.025, 0.975], axis=0).T


def told_apart(labels: Labels) -> NDArray[np.bool_]:
    """Return for each labeller whether its accuracy is identified: two others must share pairs with it and each other.

    Of two labellers alone only their agreement can be seen, and it says nothing of which of them errs; of one alone,
    nothing can. What is estimated of those is the prior, shared evenly. Ten pairs with gold are enough for anybody.
    """
    present = np.zeros((labels.pairs, labels.labellers))
    present[labels.pair, labels.labeller] = 1
    meet = (present.T @ present > 0).astype(float)
    np.fill_diagonal(meet, 0)
    return np.asarray((np.diag(meet @ meet @ meet) > 0) | (accuracy_on_gold(labels)[1] >= ENOUGH_GOLD))


def accuracy_on_gold(labels: Labels) -> tuple[Floats, Integers]:
    """Return each labeller's share of right verdicts on pairs where gold prefers an answer, and their number.

    Verdicts for neither answer do not count, as in `Estimate.accuracy`; NaN without a verdict.
    """
    gold = np.full(labels.pairs, -1) if labels.gold is None else labels.gold
    truth = gold[labels.pair]
    decided = (truth == FIRST) | (truth == SECOND)
    right = np.where(truth == FIRST, labels.outcomes[:, FIRST], labels.outcomes[:, SECOND]) * decided
    named = (labels.outcomes[:, FIRST] + labels.outcomes[:, SECOND]) * decided
    both = [np.bincount(labels.labeller, each, minlength=labels.labellers) for each in (right, named)]
    counts = np.bincount(labels.labeller, decided & (named > 0), minlength=labels.labellers).astype(np.int64)
    return np.where(both[1] > 0, both[0] / np.where(both[1] > 0, both[1], 1.0), np.nan), counts
