"""Log-probabilities and entropy of tokens at the sampling temperature, without a full-vocabulary copy."""

from collections.abc import Callable

import torch
from torch import Tensor
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
