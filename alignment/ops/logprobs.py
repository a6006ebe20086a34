"""Log-probabilities and entropy of tokens at the sampling temperature, without a full-vocabulary copy."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from alignment.errors import ShapeError


def token_logp(logits: Tensor, tokens: Tensor, *, temperature: float) -> Tensor:
    """Log-probability of each token under softmax(logits / temperature).

    Args:
        logits: (..., vocabulary), any float type; half precision is computed in float32. tokens: (...) int64.
        temperature: the one the tokens were sampled at; another one gives the probabilities of another policy.
    Returns: (...), nats.
    Raises: ShapeError where tokens and logits do not match.
    """
    if logits.shape[:-1] != tokens.shape:
        raise ShapeError(f"logits {tuple(logits.shape)} and tokens {tuple(tokens.shape)} do not match")
    scaled = _scaled(logits, temperature)
    return scaled.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - scaled.logsumexp(-1)


def token_entropy(logits: Tensor, *, temperature: float) -> Tensor:
    """Entropy of softmax(logits / temperature), log Z - Σ p·z. (..., vocabulary) → (...), nats."""
    scaled = _scaled(logits, temperature)
    return scaled.logsumexp(-1) - (scaled.softmax(-1) * scaled).sum(-1)


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return logits if temperature == 1.0 else logits / temperature


def chunked_token_logp(
    hidden: Tensor,
    head: Callable[[Tensor], Tensor],
    tokens: Tensor,
    *,
    temperature: float,
    chunk_size: int,
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """`token_logp` of `head(hidden)`, a chunk of tokens at a time.

    The logits of one chunk exist at a time; the backward pass computes them again. Memory is chunk_size × vocabulary in
    place of tokens × vocabulary.

    Args:
        hidden: (tokens, width). head: the LM head, (n, width) → (n, vocabulary). tokens: (tokens,) int64.
        chunk_size: tokens per chunk. No more tokens than that: one plain pass.
        with_entropy: also the entropy, which carries no gradient.
    Returns: log-probabilities, (tokens,), and the entropy, (tokens,), or None.
    """

    def one_chunk(part: Tensor, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        logits = head(part)
        entropy = token_entropy(logits.detach(), temperature=temperature) if with_entropy else None
        return token_logp(logits, ids, temperature=temperature), entropy

    if len(hidden) <= chunk_size:
        return one_chunk(hidden, tokens)
    logps: list[Tensor] = []
    entropies: list[Tensor] = []
    for start in range(0, len(hidden), chunk_size):
        part, ids = hidden[start : start + chunk_size], tokens[start : start + chunk_size]
        if torch.is_grad_enabled():
            logp, entropy = checkpoint(one_chunk, part, ids, use_reentrant=False, preserve_rng_state=False)
        else:
            logp, entropy = one_chunk(part, ids)
        logps.append(logp)
        if entropy is not None:
            entropies.append(entropy)
    return torch.cat(logps), torch.cat(entropies) if with_entropy else None


def linear_token_logp(
    hidden: Tensor,
    weight: Tensor,
    tokens: Tensor,
    *,
    temperature: float,
    chunk_size: int,
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """`chunked_token_logp` of a frozen LM head, whose gradient is ready before it is asked for.

    The gradient of one token's log-probability with respect to its hidden state is a vector of the hidden's width,
    (W[token] - Σ p·W) / temperature, whatever the loss does with it later. It is made while a chunk's probabilities
    are at hand, so nothing is computed twice and nothing of the vocabulary's size outlives its chunk (Liger's fused
    loss, https://arxiv.org/abs/2410.10989, section 3.2, for a loss that is not known yet).

    Args:
        hidden: (tokens, width). weight: (vocabulary, width), no gradient reaches it. tokens: (tokens,) int64.
        chunk_size: tokens whose logits exist at a time. It is part of the rounding: the same chunks, the same bits.
        with_entropy: also the entropy, which carries no gradient.
    Returns: log-probabilities, (tokens,), and the entropy, (tokens,), or None.
    """
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        found: tuple[Tensor, Tensor | None] = _LinearLogp.apply(  # type: ignore[no-untyped-call]
            hidden, weight, tokens, temperature, chunk_size, with_entropy, torch.is_grad_enabled()
        )
    return found


class _LinearLogp(torch.autograd.Function):
    """Log-probabilities with their own gradients as the only thing saved."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        tokens: Tensor,
        temperature: float,
        chunk_size: int,
        with_entropy: bool,
        grad: bool,
    ) -> tuple[Tensor, Tensor | None]:
        grad = grad and hidden.requires_grad
        slope = torch.empty_like(hidden) if grad else None  # d logp / d hidden, (tokens, width)
        logps: list[Tensor] = []
        entropies: list[Tensor] = []
        for start in range(0, len(hidden), chunk_size):
            part = slice(start, start + chunk_size)
            logits = _scaled(hidden[part] @ weight.T, temperature)
            logits -= logits.amax(-1, keepdim=True)
            chosen = logits.gather(-1, tokens[part].unsqueeze(-1)).squeeze(-1)
            # torch.logsumexp is 10 times slower on a CPU than these steps, and would make the probabilities anew
            unscaled = logits.exp() if with_entropy else logits.exp_()  # probabilities times `total`
            total = unscaled.sum(-1)
            logps.append(chosen - total.log())
            if with_entropy:
                entropies.append(total.log() - logits.mul_(unscaled).sum(-1) / total)
            if slope is not None:
                mean = unscaled.to(weight.dtype) @ weight  # under the policy, times `total`
                slope[part] = (weight[tokens[part]] - mean / total.unsqueeze(-1)) / temperature
        ctx.save_for_backward(slope)
        nothing = hidden.new_zeros(0, dtype=torch.promote_types(hidden.dtype, torch.float32))
        entropy = torch.cat([nothing, *entropies]) if with_entropy else None
        if entropy is not None:
            ctx.mark_non_differentiable(entropy)
        return torch.cat([nothing, *logps]), entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return upstream.unsqueeze(-1).to(slope.dtype) * slope, None, None, None, None, None, None
