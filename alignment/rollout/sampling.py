"""Drawing tokens from logits with random numbers that belong to each row alone."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from alignment.rollout.engine import Sampling

BLOCK = 128  # tokens summed together to find where a random number falls
FEW = 8 * BLOCK  # tokens that are summed one by one: the work is less than that of the blocks
COLDEST = 1e-20  # logits divided by a lower temperature may overflow; their order alone counts far above it
SMALLEST = torch.finfo(torch.float32).tiny  # float32 may hold a lower top-p as 0, which would drop every token


def uniforms(seed: int, row: int, count: int) -> np.ndarray:
    """Random numbers in [0, 1) of one row, float64: a function of seed and row, independent of every other row."""
    return generator(seed, row).random(count)


def generator(seed: int, row: int) -> np.random.Generator:
    """Return what draws the numbers of `uniforms`, one after the other."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, row])))


def in_float32(sampling: Sampling) -> Sampling:
    """Return settings that float32 can compute with, whose distribution is that of the given ones."""
    if sampling.temperature >= COLDEST and sampling.top_p >= SMALLEST:
        return sampling
    return replace(sampling, temperature=max(sampling.temperature, COLDEST), top_p=max(sampling.top_p, SMALLEST))


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Token probabilities after temperature, then top-k, then top-p, as transformers' warpers apply them.

    Args:
        logits: (batch, vocabulary), any float type.
        sampling: temperature above 0.
    Returns: (batch, vocabulary) float32, rows sum to one.
    """
    sampling = in_float32(sampling)
    logits = logits.float() if sampling.temperature == 1.0 else logits.float() / sampling.temperature
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
    return _invert(probabilities(logits, sampling), uniform)


def draw_with_logp(logits: Tensor, sampling: Sampling, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `draw` returns, and the log-probabilities of these tokens among those that could be drawn.

    Args:
        logits: (batch, vocabulary). uniform: (batch,) float64 in [0, 1), on the same device.
    Returns: (batch,) int64 and (batch,) float32; 0 at temperature 0.
    """
    if sampling.temperature == 0:
        tokens = draw(logits, sampling, uniform)
        return tokens, torch.zeros(tokens.shape, device=tokens.device)
    probs = probabilities(logits, sampling)
    tokens = _invert(probs, uniform)
    return tokens, probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).log()


def _invert(probs: Tensor, uniform: Tensor) -> Tensor:
    """The token of each row whose part of the distribution, (batch, vocabulary), holds the row's random number."""
    if probs.shape[-1] <= FEW:
        ends = probs.double().cumsum(-1)
        return _first_above(ends, uniform.unsqueeze(-1) * ends[:, -1:]).squeeze(-1)
    missing = -probs.shape[-1] % BLOCK
    probs = torch.nn.functional.pad(probs, (0, missing)) if missing else probs  # padding by nothing would copy
    probs = probs.view(len(probs), -1, BLOCK)
    # first the block of the vocabulary, then the token in it: a running sum in float64 over all of it can cost more
    # than the step that made the logits
    ends = probs.sum(-1).double().cumsum(-1)
    target = uniform.unsqueeze(-1) * ends[:, -1:]
    block = _first_above(ends, target)
    start = torch.where(block > 0, ends.gather(-1, (block - 1).clamp(min=0)), 0.0)
    within = probs.gather(1, block.unsqueeze(-1).expand(-1, -1, BLOCK)).squeeze(1).double().cumsum(-1)
    return (block * BLOCK + _first_above(within, (target - start).clamp(min=0))).squeeze(-1)


def _first_above(cumulative: Tensor, target: Tensor) -> Tensor:
    """The first place of each row whose running sum exceeds the target, so that places of width zero are passed over.

    The minimum keeps a target that rounded up to the total on the last place of positive width.
    """
    total = cumulative[:, -1:]
    below_total = torch.nextafter(total, torch.zeros_like(total))
    return torch.searchsorted(cumulative, torch.minimum(target, below_total), right=True)
