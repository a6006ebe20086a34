"""Draws that could be another token if the logits were rounded in another way, as they are in another batch."""

import torch
from torch import Tensor

from alignment.rollout.engine import Sampling
from alignment.rollout.sampling import in_float32, probabilities

ROUNDING = {torch.float32: 64, torch.float64: 64}  # units of rounding, of the largest logit
HALF_ROUNDING = 2  # of types that hold 8 or 11 bits


def is_close(
    logits: Tensor, sampling: Sampling, uniform: Tensor, tokens: Tensor, computed_in: torch.dtype = torch.float32
) -> Tensor:
    """Whether each draw could differ where the logits differ by rounding.

    A cumulative probability F moves by at most F (1 - F) (e^2e - 1) < e where no logit moves by more than e; a token
    at the edge of top-p moves it by its own probability.

    Args:
        logits: (batch, vocabulary). uniform: (batch,) float64 in [0, 1). tokens: (batch,) int64, from `draw`.
        computed_in: the type of the model's weights, of which the logits may be in another.
    Returns: (batch,) bool.
    """
    error = _error(logits, computed_in)
    if sampling.temperature == 0:
        best = logits.float().topk(2, dim=-1).values
        return best[:, 0] - best[:, 1] <= 2 * error
    sampling = in_float32(sampling)
    error = error / sampling.temperature
    probs = probabilities(logits, sampling)
    reach = 2 * error
    close = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    if 0 < sampling.top_k < logits.shape[-1]:
        edge = logits.float().topk(sampling.top_k + 1, dim=-1).values[:, -2:] / sampling.temperature
        close |= edge[:, 0] - edge[:, 1] <= 2 * error
    if sampling.top_p < 1.0:
        reach = reach + _at_edge(logits, sampling, error) / sampling.top_p
    before = torch.arange(probs.shape[-1], device=probs.device) < tokens.unsqueeze(-1)
    lower = (probs * before).sum(-1).double()
    upper = lower + probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    target = uniform * probs.sum(-1).double()
    return close | (torch.minimum(target - lower, upper - target) <= reach)


def _error(logits: Tensor, computed_in: torch.dtype) -> Tensor:
    """How far rounding may move a logit of each row, (batch,) float32."""
    units = ROUNDING.get(computed_in, HALF_ROUNDING)
    finite = logits.float().masked_fill(logits.isinf(), 0.0)
    return units * torch.finfo(computed_in).eps * finite.abs().amax(-1)


def _at_edge(logits: Tensor, sampling: Sampling, error: Tensor) -> Tensor:
    """The probability of the tokens that rounding may move into or out of the set of top-p, (batch,)."""
    whole = probabilities(logits, Sampling(1, sampling.temperature, top_k=sampling.top_k))
    ordered = whole.sort(dim=-1, descending=True).values
    before = ordered.cumsum(-1) - ordered
    kept = (before < sampling.top_p).sum(-1, keepdim=True)
    last, first = (
        ordered.gather(-1, (kept + shift).clamp(0, ordered.shape[-1] - 1)).clamp(min=torch.finfo(torch.float32).tiny)
        for shift in (-1, 0)
    )
    near = (before - sampling.top_p).abs() <= 2 * error.unsqueeze(-1)
    factor = (2 * error.unsqueeze(-1)).exp()
    tied = last <= first * factor  # which of the tokens as likely as these are kept may change
    near |= tied & (ordered <= last * factor) & (ordered >= first / factor)
    return (ordered * near).sum(-1)
