"""Agreement metrics against hand computed values."""

import math

import numpy as np
import pytest

from reward.models.batches import EncodedRanking
from reward.models.metrics import agreement_by_quantile, correlation, preference_metrics


def ranking(*pairs: tuple[int, int, float], tokens: list[int]) -> EncodedRanking:
    return EncodedRanking([[1] * n for n in tokens], tokens, [(i, j, p, 0.0) for i, j, p in pairs])


def test_accuracy_counts_equal_scores_as_half_and_leaves_ties_out() -> None:
    rankings = [
        ranking((0, 1, 1.0), (0, 2, 0.9), (1, 2, 0.5), tokens=[3, 2, 1]),  # right, right, tie: out
        ranking((0, 1, 0.0), tokens=[5, 1]),  # first is worse but scores higher: wrong
        ranking((0, 1, 0.7), tokens=[2, 2]),  # equal scores: half
    ]
    metrics = preference_metrics([[2.0, 1.0, 0.0], [1.0, 0.0], [4.0, 4.0]], rankings)
    assert metrics["accuracy"] == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert metrics["pairs"] == 5
    assert metrics["pairs_decided"] == 4
    # the longer answer: right, right, wrong (the longer one is worse), half
    assert metrics["accuracy_of_longer_answer"] == pytest.approx(2.5 / 4)
    assert metrics["accuracy_low"] < metrics["accuracy"] < metrics["accuracy_high"]


def test_nll_brier_and_entropy_weigh_prompts_the_same() -> None:
    # prompt 0: gap ln 3, so sigma = 3/4, label 1: nll ln(4/3) = 0.28768207, brier 1/16, entropy 0
    # prompt 1: two pairs of gap 0, labels 1 and 1/2: nll ln 2 twice; brier 1/4 and 0, mean 1/8; entropy 0 and ln 2
    rankings = [ranking((0, 1, 1.0), tokens=[1, 2]), ranking((0, 1, 1.0), (0, 2, 0.5), tokens=[1, 2, 3])]
    metrics = preference_metrics([[math.log(3), 0.0], [1.0, 1.0, 1.0]], rankings)
    assert metrics["nll"] == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    assert metrics["brier"] == pytest.approx((1 / 16 + 1 / 8) / 2)
    assert metrics["entropy"] == pytest.approx((0 + math.log(2) / 2) / 2)
    assert metrics["loss"] == metrics["nll"]


def test_loss_holds_centring_and_margin() -> None:
    # gap ln 6, margin ln 2: -ln sigma(ln 3) = ln(4/3); centring 0.1 * (ln 6)^2
    rows = [EncodedRanking([[1], [1]], [1, 1], [(0, 1, 1.0, math.log(2))])]
    metrics = preference_metrics([[math.log(6), 0.0]], rows, center_rewards_coefficient=0.1, use_margin=True)
    assert metrics["loss"] == pytest.approx(math.log(4 / 3) + 0.1 * math.log(6) ** 2)
    assert metrics["nll"] == pytest.approx(math.log(7 / 6))  # -ln sigma(ln 6) = -ln(6/7)


def test_length_correlation_by_hand() -> None:
    # over all: scores 1 2 3 4 against lengths 1 3 2 4: ranks the same; spearman = pearson = 0.8
    # within prompts: score deviations -.5 .5 -.5 .5, length deviations -1 1 -1 1: 1.0
    rankings = [ranking((0, 1, 1.0), tokens=[1, 3]), ranking((0, 1, 1.0), tokens=[2, 4])]
    metrics = preference_metrics([[1.0, 2.0], [3.0, 4.0]], rankings)
    assert metrics["length_spearman"] == pytest.approx(0.8)
    assert metrics["length_pearson"] == pytest.approx(0.8)
    assert metrics["length_pearson_within_prompt"] == pytest.approx(1.0)


def test_equal_values_share_their_mean_rank() -> None:
    # ranks 1.5 3 1.5 4 against 1 2 3 4: 3 / sqrt(4.5 * 5) = 0.63245553
    found = correlation(np.array([10.0, 20.0, 10.0, 30.0]), np.array([1.0, 2.0, 3.0, 4.0]), ranked=True)
    assert found == pytest.approx(0.63245553)


def test_no_correlation_where_one_side_does_not_vary() -> None:
    assert correlation(np.array([1.0, 1.0]), np.array([1.0, 2.0])) is None


def test_agreement_by_quantile_of_the_gap() -> None:
    size = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    correct = np.array([0.0, 1.0, 0.5, 0.5, 1.0, 0.0, 1.0, 1.0])
    rows = agreement_by_quantile(size, correct)
    assert [row["accuracy"] for row in rows] == [0.5, 0.5, 0.5, 1.0]
    assert [row["pairs"] for row in rows] == [2, 2, 2, 2]
    assert (rows[0]["from"], rows[-1]["to"]) == (0.1, 0.8)


def test_one_certainty_is_one_bin() -> None:
    rows = agreement_by_quantile(np.ones(5), np.array([1.0, 1.0, 0.0, 0.5, 0.0]))
    assert rows == [{"from": 1.0, "to": 1.0, "pairs": 5, "accuracy": 0.5}]


def test_only_ties_give_no_accuracy() -> None:
    metrics = preference_metrics([[1.0, 0.0]], [ranking((0, 1, 0.5), tokens=[1, 1])])
    assert "accuracy" not in metrics
    assert metrics["pairs"] == 1


def test_the_interval_resamples_prompts_not_rows() -> None:
    # 40 rows, right and wrong in equal parts, of 2 prompts: every prompt all right or all wrong
    rows = [EncodedRanking([[1], [1]], [1, 1], [(0, 1, 1.0, 0.0)], prompt=f"prompt {n % 2}") for n in range(40)]
    scores = [[1.0, 0.0] if n % 2 else [0.0, 1.0] for n in range(40)]
    metrics = preference_metrics(scores, rows)
    assert (metrics["accuracy"], metrics["accuracy_low"], metrics["accuracy_high"]) == (0.5, 0.0, 1.0)
