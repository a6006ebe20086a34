"""Log-probabilities and entropy of tokens at the sampling temperature, without a full-vocabulary copy."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from alignment.errors import ShapeError
from alignment.ops.logits import LogitRule, wide_product

PLAIN = LogitRule()


def token_logp(logits: Tensor, tokens: Tensor, *, temperature: float) -> Tensor:
    """Log-probability of each token under softmax(logits / temperature).

    Args:
        logits: (..., vocabulary), any float type; half precision is computed in float32. tokens: (...) int64.
        temperature: the one the tokens were sampled at; another one gives the probabilities of another policy.
    Returns: (...), nats.
    Raises: ShapeError if tokens and logits do not match.
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
    block_size: int,
    rule: LogitRule = PLAIN,
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """`token_logp` of a frozen LM head, in blocks of the vocabulary; the forward pass computes its gradient.

    The gradient of one token's log-probability with respect to its hidden state is a vector of the hidden's width,
    (W[token] - Σ p·W) / temperature, whatever the loss does with it later. Its sum, and those of the probabilities, run
    along as blocks go by, scaled anew where a larger logit comes (online softmax, https://arxiv.org/abs/1805.02867).
    Where `rule` bends logits, each row of W counts by the slope of its logit. Nothing is computed twice and nothing of
    the vocabulary's size is ever whole.

    Args:
        hidden: (tokens, width). weight: (vocabulary, width), no gradient reaches it. tokens: (tokens,) int64.
        block_size: rows of `weight` taken at a time. It is part of the rounding: the same blocks, the same bits.
        rule: from what the head gives to logits.
        with_entropy: also the entropy, which carries no gradient.
    Returns: log-probabilities, (tokens,), and the entropy, (tokens,), or None.
    """
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    with torch.autocast(hidden.device.type, enabled=False):
        found: tuple[Tensor, Tensor | None] = _LinearLogp.apply(  # type: ignore[no-untyped-call]
            hidden, weight, tokens, temperature, block_size, rule, with_entropy, torch.is_grad_enabled()
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
        block_size: int,
        rule: LogitRule,
        with_entropy: bool,
        grad: bool,
    ) -> tuple[Tensor, Tensor | None]:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        column = hidden.new_zeros(len(hidden), 1, dtype=wide)
        largest = column - 1e30  # of the logits so far
        # sums over the tokens not chosen, of e = exp(z - largest), of (z - largest)·e and of e·W. The chosen one comes
        # last: where it has nearly all probability, the rest is small, and must not be a difference of large numbers
        chosen, others, weighted = column.clone(), column.clone(), column.clone()
        own_bend: Tensor | float = 1.0
        pull = torch.zeros_like(hidden, dtype=wide) if grad and hidden.requires_grad else None
        ids = tokens.unsqueeze(-1)
        for start in range(0, len(weight), block_size):
            block = weight[start : start + block_size]
            logits, bend = rule.with_slope(wide_product(hidden, block))
            logits = _scaled(logits, temperature)
            before, largest = largest, torch.maximum(largest, logits.amax(-1, keepdim=True))
            place, here = (ids - start).clamp(0, len(block) - 1), (ids >= start) & (ids < start + len(block))
            found = logits.gather(-1, place)
            chosen = torch.where(here, found, chosen)
            if bend is not None:
                own_bend = torch.where(here, bend.gather(-1, place), own_bend)
            logits -= largest
            logits.scatter_(-1, place, torch.where(here, -1e4, found - largest))  # exp(-1e4) is 0
            rescale = (before - largest).exp()
            if with_entropy:
                weighted = (weighted + (before - largest) * others) * rescale
            # torch.logsumexp is 10 times slower on a CPU than these steps, and would make the probabilities anew
            unscaled = logits.exp() if with_entropy else logits.exp_()
            others = others * rescale + unscaled.sum(-1, keepdim=True)
            if with_entropy:
                weighted += logits.mul_(unscaled).sum(-1, keepdim=True)
            if pull is not None:
                part = (unscaled if bend is None else unscaled * bend).to(weight.dtype)
                if pull.dtype == weight.dtype:
                    pull.mul_(rescale).addmm_(part, block)
                else:
                    pull.mul_(rescale).add_(wide_product(part, block.T))
        own = (chosen - largest).exp()
        total = others + own
        slope = None  # d logp / d hidden
        if pull is not None:
            slope = others * weight[tokens] if rule.cap is None else others * own_bend * weight[tokens]
            slope = ((slope - pull) / (total * (temperature / rule.scale))).to(hidden.dtype)
        ctx.save_for_backward(slope)
        logp = (chosen - largest - total.log()).squeeze(-1)
        weighted = weighted + (chosen - largest) * own
        entropy = (total.log() - weighted / total).squeeze(-1) if with_entropy else None
        if entropy is not None:
            ctx.mark_non_differentiable(entropy)
        return logp, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return upstream.unsqueeze(-1).to(slope.dtype) * slope, None, None, None, None, None, None, None
