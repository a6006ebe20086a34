"""Metrics of a reward model on held-out comparisons."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit

from alignment.evaluate.statistics import agreement, share_interval
from reward.models.batches import EncodedRanking
from reward.models.losses import comparison_loss

Array = NDArray[np.float64]
MARGIN_BINS = 4  # quantiles of the score difference


def preference_metrics(
    scores: Sequence[Sequence[float]],
    rankings: Sequence[EncodedRanking],
    *,
    center_rewards_coefficient: float = 0.0,
    use_margin: bool = False,
    label_smoothing: float = 0.0,
    log_nu: float | None = None,
) -> dict[str, Any]:
    """Compare scores with the labels of held-out rankings.

    Accuracy is over the pairs whose label is not a tie; equal scores count one half. Its 95 % interval resamples
    prompts. `loss` is the training loss; `nll` and `brier` rate the predicted probability sigma(s_1 - s_2) against the
    label (nats, and squared error), `entropy` is the minimum of `nll`; all are means over the pairs of a prompt, then
    over prompts.

    Args:
        scores: one list per prompt, one score per answer.

    Returns: flat metrics under plain names; `agreement_by_score_gap` and `agreement_by_certainty` are lists of bins.
    """
    prompt = np.array([place for place, ranking in enumerate(rankings) for _ in ranking.pairs])
    gap, total, label, margin, longer = _pairs(scores, rankings)
    weight = _prompt_weights(prompt)
    nll = _cross_entropy(gap, label)
    loss = _training_loss(gap, label, margin if use_margin else None, label_smoothing, log_nu)
    metrics: dict[str, Any] = {
        "loss": float(weight @ (loss + center_rewards_coefficient * total**2)),
        "nll": float(weight @ nll),
        "brier": float(weight @ (expit(gap) - label) ** 2),
        "entropy": float(weight @ _entropy(label)),
        "prompts": len(rankings),
        "pairs": len(label),
        **_length_correlations(scores, rankings),
    }
    flat = np.concatenate([np.asarray(row, dtype=np.float64) for row in scores])
    metrics |= {"score_mean": float(flat.mean()), "score_std": float(flat.std())}
    decided = label != 0.5
    if decided.any():
        correct = agreement(gap, label)[decided]
        clusters = [rankings[place].prompt or place for place in prompt[decided]]
        interval = share_interval(correct, clusters)
        metrics |= {
            "accuracy": interval.value,
            "accuracy_low": interval.low,
            "accuracy_high": interval.high,
            "accuracy_of_longer_answer": float(agreement(longer, label)[decided].mean()),
            "pairs_decided": int(decided.sum()),
            "agreement_by_score_gap": agreement_by_quantile(np.abs(gap[decided]), correct),
            "agreement_by_certainty": agreement_by_quantile(np.abs(label[decided] - 0.5) + 0.5, correct),
        }
    return metrics


def agreement_by_quantile(size: Array, correct: Array, bins: int = MARGIN_BINS) -> list[dict[str, float]]:
    """Return the accuracy by quantile of `size`; equal sizes share a bin, so there may be fewer bins.

    Args:
        size, correct: (pairs,); correct is 1, 0, or one half for equal scores.
    """
    edges = np.unique(np.quantile(size, np.linspace(0, 1, bins + 1)))
    which = np.clip(np.searchsorted(edges, size, side="right") - 1, 0, max(len(edges) - 2, 0))
    rows = []
    for place in np.unique(which):
        inside = which == place
        low, high, accuracy = size[inside].min(), size[inside].max(), correct[inside].mean()
        rows.append({"from": float(low), "to": float(high), "pairs": int(inside.sum()), "accuracy": float(accuracy)})
    return rows


def correlation(first: Array, second: Array, *, ranked: bool = False) -> float | None:
    """Return Pearson's correlation, or Spearman's of the ranks; None if one side is constant."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    if ranked:
        first, second = ranks(first), ranks(second)
    return float(np.clip(np.corrcoef(first, second)[0, 1], -1.0, 1.0))


def ranks(values: Array) -> Array:
    """Return the ranks from 1, equal values sharing their mean; `scipy.stats` has them, and takes 20 MiB to import."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: Array = np.cumsum(counts) - (counts - 1) / 2
    return means[which]


def _pairs(
    scores: Sequence[Sequence[float]], rankings: Sequence[EncodedRanking]
) -> tuple[Array, Array, Array, Array, Array]:
    """Score gap, score sum, label, margin and length gap of every pair."""
    columns = [
        (row[i] - row[j], row[i] + row[j], p, m, ranking.answer_tokens[i] - ranking.answer_tokens[j])
        for row, ranking in zip(scores, rankings, strict=True)
        for i, j, p, m in ranking.pairs
    ]
    gap, total, label, margin, longer = np.array(columns, dtype=np.float64).T
    return gap, total, label, margin, longer


def _prompt_weights(prompt: NDArray[np.int64]) -> Array:
    """Weights that sum to one, the same for every prompt, shared by its pairs."""
    counts = np.bincount(prompt)
    weights: Array = 1.0 / counts[prompt] / len(counts)
    return weights


def _training_loss(
    gap: Array, label: Array, margin: Array | None, label_smoothing: float, log_nu: float | None
) -> Array:
    """Return the training loss of each pair, without centring."""
    difference, probability = torch.from_numpy(gap), torch.from_numpy(label)
    loss: Array = comparison_loss(
        difference,
        torch.zeros_like(difference),
        probability,
        None if margin is None else torch.from_numpy(margin),
        label_smoothing=label_smoothing,
        log_nu=None if log_nu is None else torch.tensor(log_nu, dtype=torch.float64),
    ).numpy()
    return loss


def _cross_entropy(gap: Array, label: Array) -> Array:
    loss: Array = label * np.logaddexp(0, -gap) + (1 - label) * np.logaddexp(0, gap)
    return loss


def _entropy(label: Array) -> Array:
    inside = np.clip(label, 1e-300, 1.0), np.clip(1 - label, 1e-300, 1.0)
    entropy: Array = -(label * np.log(inside[0]) + (1 - label) * np.log(inside[1]))
    return entropy


def _length_correlations(
    scores: Sequence[Sequence[float]], rankings: Sequence[EncodedRanking]
) -> dict[str, float | None]:
    """Return the correlations of score and answer length in tokens, overall and after centring by prompt."""
    score = [np.asarray(row, dtype=np.float64) for row in scores]
    length = [np.asarray(ranking.answer_tokens, dtype=np.float64) for ranking in rankings]
    flat_score, flat_length = np.concatenate(score), np.concatenate(length)
    within = [np.concatenate([row - row.mean() for row in rows]) for rows in (score, length)]
    return {
        "length_pearson": correlation(flat_score, flat_length),
        "length_spearman": correlation(flat_score, flat_length, ranked=True),
        "length_pearson_within_prompt": correlation(within[0], within[1]),
    }
