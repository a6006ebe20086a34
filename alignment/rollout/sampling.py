"""Drawing tokens from logits with random numbers that belong to each row alone."""

import numpy as np
import torch
from torch import Tensor

from alignment.rollout.engine import Sampling


def uniforms(seed: int, row: int, count: int) -> np.ndarray:
    """Random numbers in [0, 1) of one row, float64: a function of seed and row, independent of every other row."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, row]))).random(count)


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Token probabilities after temperature, then top-k, then top-p, as transformers' warpers apply them.

    Args:
        logits: (batch, vocabulary), any float type.
        sampling: temperature above 0.
    Returns: (batch, vocabulary) float32, rows sum to one.
    """
    logits = logits.float() / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        smallest = logits.topk(sampling.top_k, dim=-1).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    probs = logits.softmax(-1)
    if sampling.top_p < 1.0:
        ordered, order = probs.sort(dim=-1, descending=True)
        before = ordered.cumsum(-1) - ordered  # probability of all likelier tokens; 0 for the likeliest
        dropped = torch.zeros_like(probs, dtype=torch.bool).scatter(-1, order, before >= sampling.top_p)
        probs = probs.masked_fill(dropped, 0.0)
        probs = probs / probs.sum(-1, keepdim=True)
    return probs


def draw(logits: Tensor, sampling: Sampling, uniform: Tensor) -> Tensor:
    """One token per row by inverting the cumulative distribution at that row's random number.

    Args:
        logits: (batch, vocabulary). uniform: (batch,) float64 in [0, 1), on the same device.
    Returns: (batch,) int64. A token of probability zero is never drawn.
    """
    if sampling.temperature == 0:
        return logits.argmax(-1)
    cumulative = probabilities(logits, sampling).double().cumsum(-1)
    total = cumulative[:, -1:]
    # `right` finds the first token whose cumulative probability exceeds the number, so zero-width tokens are passed
    # over; the minimum keeps a number that rounds up to the total on the last token of positive probability.
    below_total = torch.nextafter(total, torch.zeros_like(total))
    target = torch.minimum(uniform.unsqueeze(-1) * total, below_total)
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1)
