import math

import numpy as np
import pytest

from alignment.evaluate.statistics import Bootstrap, mean_interval, share_interval, wilson, wins


def test_the_mean_weighs_observations_not_clusters():
    interval = mean_interval([1, 2, 3, 10], ["a", "a", "a", "b"])
    assert interval.value == pytest.approx(4.0, rel=1e-12)  # (1 + 2 + 3 + 10) / 4, not (2 + 10) / 2 = 6
    assert (interval.n, interval.clusters) == (4, 2)


def test_the_interval_of_two_clusters_is_that_of_their_four_resamplings():
    # Clusters a = {0, 2}, b = {10}. Resamplings: aa (mean 1), ab and ba (mean 4), bb (mean 10), a quarter each.
    # 2.5 % and 97.5 % fall on aa and bb; a 40 % interval (30 % to 70 %) falls on ab.
    assert mean_interval([0, 2, 10], [1, 1, 2], Bootstrap(samples=4000)).low == 1.0
    assert mean_interval([0, 2, 10], [1, 1, 2], Bootstrap(samples=4000)).high == 10.0
    middle = mean_interval([0, 2, 10], [1, 1, 2], Bootstrap(level=0.4, samples=4000))
    assert (middle.low, middle.high) == (4.0, 4.0)


def test_the_interval_agrees_with_a_loop_over_the_definition():
    rng = np.random.default_rng(1)
    clusters = rng.integers(0, 40, size=150)
    values = rng.normal(size=150) + clusters / 10
    groups = [values[clusters == c] for c in np.unique(clusters)]
    means = []
    for _ in range(20_000):
        chosen = [groups[i] for i in rng.integers(0, len(groups), size=len(groups))]
        means.append(np.concatenate(chosen).mean())
    found = mean_interval(values, clusters, Bootstrap(samples=20_000, seed=3))
    # Monte Carlo error of a 2.5 % quantile from 20,000 draws is about 0.02 standard errors of the mean.
    tolerance = 0.08 * np.std(means)
    assert found.low == pytest.approx(np.quantile(means, 0.025), abs=tolerance)
    assert found.high == pytest.approx(np.quantile(means, 0.975), abs=tolerance)


def test_single_observations_agree_with_scipy():
    scipy_stats = pytest.importorskip("scipy.stats", reason="scipy comes with the dev extra")
    values = np.random.default_rng(2).exponential(size=80)
    theirs = scipy_stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=1)
    ours = mean_interval(values, range(80), Bootstrap(samples=20_000))
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.08 * theirs.standard_error)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.08 * theirs.standard_error)


def test_the_clustered_interval_covers_the_truth_and_the_naive_one_does_not():
    # 60 prompts, 5 answers each; between-prompt spread 1, within 0.3: answers of a prompt nearly repeat each other.
    rng = np.random.default_rng(4)
    clustered = naive = 0
    for trial in range(300):
        values = (rng.normal(size=(60, 1)) + 0.3 * rng.normal(size=(60, 5))).ravel()
        by_prompt = mean_interval(values, np.repeat(np.arange(60), 5), Bootstrap(samples=400, seed=trial))
        by_answer = mean_interval(values, range(300), Bootstrap(samples=400, seed=trial))
        clustered += by_prompt.low <= 0 <= by_prompt.high
        naive += by_answer.low <= 0 <= by_answer.high
    assert clustered / 300 > 0.90  # 0.95 less three binomial standard errors and the percentile method's small bias
    assert naive / 300 < 0.75


def test_a_seed_fixes_the_interval():
    values = np.random.default_rng(5).normal(size=50)
    assert mean_interval(values, range(50), Bootstrap(seed=1)) == mean_interval(values, range(50), Bootstrap(seed=1))
    assert mean_interval(values, range(50), Bootstrap(seed=1)) != mean_interval(values, range(50), Bootstrap(seed=2))


def test_many_clusters_are_drawn_in_chunks_with_the_same_result(monkeypatch):
    values = np.random.default_rng(6).normal(size=30)
    whole = mean_interval(values, range(30), Bootstrap(samples=100))
    monkeypatch.setattr("alignment.evaluate.statistics.DRAWS_AT_ONCE", 90)
    chunked = mean_interval(values, range(30), Bootstrap(samples=100))
    assert (chunked.low, chunked.high) == pytest.approx((whole.low, whole.high), rel=1e-12)


def test_one_cluster_gives_no_interval():
    interval = mean_interval([1.0, 3.0], ["same", "same"])
    assert interval.value == 2.0
    assert math.isnan(interval.low)
    assert interval.as_json() == {"value": 2.0, "low": None, "high": None, "n": 2, "clusters": 1}


def test_all_wins_do_not_claim_certainty():
    interval = share_interval([1.0] * 40, range(40))
    # Wilson at 40 of 40: 1 / (1 + z²/n) = 1 / (1 + 3.841459/40) = 0.912378
    assert interval.low == pytest.approx(0.912378, abs=1e-6)
    assert interval.high == 1.0


@pytest.mark.parametrize(("successes", "trials", "level"), [(0, 10, 0.95), (7, 12, 0.95), (83, 100, 0.9), (5, 5, 0.99)])
def test_wilson_agrees_with_scipy(successes, trials, level):
    scipy_stats = pytest.importorskip("scipy.stats", reason="scipy comes with the dev extra")
    theirs = scipy_stats.binomtest(successes, trials).proportion_ci(level, method="wilson")
    assert wilson(successes, trials, level) == pytest.approx((theirs.low, theirs.high), rel=1e-9, abs=1e-12)


def test_wilson_by_hand():
    # 5 of 10: centre 1/2; at a half the formula shrinks to z / (2 sqrt(n + z²)), with z = 1.959964:
    # 1.959964 / (2 * sqrt(13.841459)) = 1.959964 / 7.440822 = 0.263407
    assert wilson(5, 10) == pytest.approx((0.236593, 0.763407), abs=1e-6)


def test_ties_are_half_a_win():
    assert wins([0.9, 0.51, 0.5, 0.49, 0.0]).tolist() == [1, 1, 0.5, 0, 0]


def test_accuracy_counts_equal_scores_as_half():
    assert share_interval([True, False, 0.5], [0, 1, 2]).value == pytest.approx(0.5, rel=1e-12)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="nothing was observed"):
        mean_interval([], [])
    with pytest.raises(ValueError, match="need one cluster each, found 1"):
        mean_interval([1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match="between 0 and 1, found 0 to 2"):
        share_interval([0.0, 2.0], [1, 2])
    with pytest.raises(ValueError, match="3 successes in 2 trials"):
        wilson(3, 2)
