"""Losses of a scalar reward on comparisons: pure functions of scores."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from alignment.errors import ShapeError

TIE = 0.5  # label of a tie


def pair_loss(first: Tensor, second: Tensor, probability: Tensor, margin: Tensor | None = None) -> Tensor:
    """Cross-entropy of the Bradley-Terry model against the probability that the first answer is better.

    -p log sigma(s_1 - s_2 - m) - (1 - p) log sigma(s_2 - s_1 - m). With p = 1 and m = 0 this is eq. 1 of
    https://arxiv.org/abs/2203.02155; the margin m is eq. 2 of https://arxiv.org/abs/2307.09288 (Llama 2), required
    of either side, so that the loss does not change when the answers are swapped and p becomes 1 - p.

    Args:
        first, second: (pairs,) float, scores of the two answers.
        probability: (pairs,) float in [0, 1], that `first` is better.
        margin: (pairs,) float >= 0, in units of the score, or None for zero.

    Returns: (pairs,) float, in nats.
    Raises: ShapeError if the shapes differ.
    """
    _require_one_shape(first=first, second=second, probability=probability, margin=margin)
    difference = first - second
    gap = torch.zeros_like(difference) if margin is None else margin
    return -probability * logsigmoid(difference - gap) - (1.0 - probability) * logsigmoid(-difference - gap)


def davidson_loss(
    first: Tensor, second: Tensor, probability: Tensor, log_nu: Tensor, margin: Tensor | None = None
) -> Tensor:
    """Cross-entropy of Davidson's model, in which two answers may be equally good.

    Davidson 1970 (Journal of the American Statistical Association 65, 317-328), with worths e^s: with d = s_1 - s_2,

        P(first better) = e^(d/2) / Z,  P(tie) = nu / Z,  P(second better) = e^(-d/2) / Z,  Z = e^(d/2) + e^(-d/2) + nu.

    Given that there is no tie, P(first better) is sigma(d) as in Bradley-Terry, and nu = 0 is Bradley-Terry. A label of
    exactly one half is a tie, with loss -log P(tie); any other probability p has the loss
    -p log P(first better) - (1 - p) log P(second better), with the margin as in `pair_loss`.

    Args:
        first, second, probability, margin: as in `pair_loss`.
        log_nu: () float, log of nu, at equal scores the odds of a tie against either side.

    Returns: (pairs,) float, in nats.
    Raises: ShapeError if the shapes differ.
    """
    _require_one_shape(first=first, second=second, probability=probability, margin=margin)
    difference = first - second
    gap = torch.zeros_like(difference) if margin is None else margin
    wins, loses = (_log_outcomes(side, log_nu)[0] for side in (difference - gap, -difference - gap))
    ties = _log_outcomes(difference, log_nu)[1]
    return torch.where(probability == TIE, -ties, -probability * wins - (1.0 - probability) * loses)


def _log_outcomes(difference: Tensor, log_nu: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-probabilities that the first is better, and of a tie."""
    half = difference / 2
    nu = log_nu.to(half.dtype).expand_as(half)
    log_z = torch.logsumexp(torch.stack([half, -half, nu]), 0)
    return half - log_z, nu - log_z


def smoothed(probability: Tensor, label_smoothing: float) -> Tensor:
    """Return labels under the assumption that a share `label_smoothing` of them is inverted.

    p becomes (1 - e) p + e (1 - p), so the preferred answer stays the same and one half stays one half. For p = 1 it is
    the label of conservative DPO (Mitchell 2023, https://ericmitchell.ai/cdpo.pdf), TRL's key of the same name.
    """
    return probability + label_smoothing * (1.0 - 2.0 * probability)


def comparison_loss(
    first: Tensor,
    second: Tensor,
    probability: Tensor,
    margin: Tensor | None = None,
    *,
    label_smoothing: float = 0.0,
    log_nu: Tensor | None = None,
) -> Tensor:
    """`pair_loss`, or `davidson_loss` with a `log_nu`, of smoothed labels; (pairs,) float, in nats."""
    labels = smoothed(probability, label_smoothing)
    if log_nu is None:
        return pair_loss(first, second, labels, margin)
    return davidson_loss(first, second, labels, log_nu, margin)


def centring_loss(first: Tensor, second: Tensor) -> Tensor:
    """Squared sum of a pair's scores, section 3 of https://arxiv.org/abs/2312.09244, as in TRL's `RewardTrainer`.

    Preferences determine only differences of scores. This loss determines their zero without shrinking the differences,
    as a penalty on each squared score would.

    Args:
        first, second: (pairs,) float, scores of the two answers.

    Returns: (pairs,) float, in squared units of the score.
    """
    _require_one_shape(first=first, second=second)
    return (first + second) ** 2


def ranking_loss(
    scores: Tensor,
    first: Tensor,
    second: Tensor,
    probability: Tensor,
    prompt: Tensor,
    *,
    num_prompts: int | float | Tensor,
    margin: Tensor | None = None,
    center_rewards_coefficient: float = 0.0,
    label_smoothing: float = 0.0,
    log_nu: Tensor | None = None,
) -> Tensor:
    """Mean over all compared pairs of a prompt, then over prompts, eq. 1 of https://arxiv.org/abs/2203.02155.

    Every prompt has the same weight regardless of its number of pairs: the up to K(K-1)/2 pairs of K answers share a
    forward pass and are not independent.

    Args:
        scores: (answers,) float, of all answers of all prompts of a microbatch.
        first, second: (pairs,) int, indices into `scores`.
        probability: (pairs,) float, that `first` is better.
        prompt: (pairs,) int, the index of a pair's prompt in the microbatch.
        num_prompts: prompts of the *global* batch, over microbatches and processes; the sum of the microbatches'
            losses is then the mean over the global batch.
        margin: (pairs,) float >= 0, or None.
        center_rewards_coefficient: weight of `centring_loss`, averaged as the pairs are.
        label_smoothing, log_nu: as in `comparison_loss`.

    Returns: () float.
    Raises: ShapeError if the pairs' tensors differ in shape.
    """
    _require_one_shape(first=first, second=second, probability=probability, prompt=prompt, margin=margin)
    loss = comparison_loss(
        scores[first],
        scores[second],
        probability.to(scores.dtype),
        margin,
        label_smoothing=label_smoothing,
        log_nu=log_nu,
    )
    if center_rewards_coefficient:
        loss = loss + center_rewards_coefficient * centring_loss(scores[first], scores[second])
    pairs_of_prompt = torch.bincount(prompt)[prompt]
    return (loss / pairs_of_prompt).sum() / num_prompts


def _require_one_shape(**tensors: Tensor | None) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items() if tensor is not None}
    if len(set(shapes.values())) > 1:
        raise ShapeError(f"these must have one shape (pairs,): {shapes}")
