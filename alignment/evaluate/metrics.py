"""Measures of a policy without a judge: KL, length, diversity, perplexity."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from alignment.data.masks import Answer
from alignment.data.rows import Demonstration
from alignment.data.template import Template
from alignment.errors import DataError
from alignment.evaluate.statistics import Bootstrap, mean_interval
from alignment.ops.kl import kl_estimate
from alignment.ops.logprobs import token_logp
from alignment.rollout.context import context_of
from alignment.rollout.encoded import answer_logits
from alignment.rollout.steps import has_encoder

LONGEST_WINDOW = 2_048  # tokens of one perplexity window, however long the model's context
TOKENS_AT_ONCE = 8_192  # tokens in one perplexity batch
Losses = NDArray[np.float64]  # (documents, 2): nats of a document's predicted tokens, and how many these are


def token_logps(
    model: nn.Module, prompt_ids: list[list[int]], answer_ids: list[list[int]], *, temperature: float, batch_size: int
) -> list[Tensor]:
    """Log-probabilities of each answer's tokens under `model` at the sampling temperature.

    Returns: one (answer tokens,) float64 tensor per answer, on the CPU.
    """
    device = next(model.parameters()).device
    order = sorted(range(len(prompt_ids)), key=lambda i: len(prompt_ids[i]) + len(answer_ids[i]))
    found: list[Tensor] = [torch.empty(0)] * len(prompt_ids)
    model.eval()
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        prompts, answers = [prompt_ids[i] for i in rows], [answer_ids[i] for i in rows]
        if has_encoder(model):
            (inputs, mask), (targets, _) = _padded(prompts, device), _padded(answers, device)
            logps, begins = encoded_logps(model, inputs, mask, targets, temperature), [0] * len(rows)
        else:
            sequences = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
            logps = next_token_logps(model, *_padded(sequences, device), temperature)
            begins = [len(prompt) - 1 for prompt in prompts]  # the token at position t is predicted at t - 1
        for row, i in enumerate(rows):
            found[i] = logps[row, begins[row] : begins[row] + len(answers[row])].cpu()
    return found


def _padded(rows: Sequence[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return ids and attention mask, (rows, longest).

    Padding on the right is never attended to by what is read, so any id will do.
    """
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], dtype=torch.long, device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    return ids, mask


@torch.no_grad()
def next_token_logps(model: nn.Module, input_ids: Tensor, mask: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probability of each token given those before it; (batch, time) ids give (batch, time - 1) float64."""
    logits = model(input_ids=input_ids, attention_mask=mask, use_cache=False).logits[:, :-1]
    return _by_row(logits, input_ids[:, 1:], temperature)


@torch.no_grad()
def encoded_logps(model: nn.Module, prompts: Tensor, mask: Tensor, answers: Tensor, temperature: float) -> Tensor:
    """Log-probability of each token of answers behind an encoder; (batch, answer time) ids give the same, float64."""
    return _by_row(answer_logits(model, prompts, mask, answers), answers, temperature)


def _by_row(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    rows = []
    for row_logits, row_targets in zip(logits, targets, strict=True):  # row by row: float copies of all would not fit
        rows.append(token_logp(row_logits, row_targets, temperature=temperature).double())
    return torch.stack(rows)


def kl(
    logps: Sequence[Tensor], ref_logps: Sequence[Tensor], clusters: Sequence[int], bootstrap: Bootstrap
) -> dict[str, Any]:
    """KL from the reference in nats per answer, estimated at the sampled tokens.

    The value is the mean over answers of the sum of log p - log p_ref (k1, http://joschu.net/blog/kl-approx.html):
    unbiased where answers were sampled from p itself, that is with top_p 1 and top_k 0. `k3` is that page's
    lower-variance estimate, summed over tokens alike.
    """
    if not logps:
        raise DataError("no answers to estimate the KL from; the held-out prompts are empty")
    k1 = [float(kl_estimate(logp, ref, "k1").sum()) for logp, ref in zip(logps, ref_logps, strict=True)]
    k3 = [float(kl_estimate(logp, ref, "k3").sum()) for logp, ref in zip(logps, ref_logps, strict=True)]
    estimate = mean_interval(k1, clusters, bootstrap).as_json()
    tokens = sum(len(logp) for logp in logps)
    return estimate | {"k3": sum(k3) / len(k3), "per_token": sum(k1) / tokens if tokens else None, "unit": "nats"}


def lengths(
    answer_ids: Sequence[Sequence[int]], stopped: Sequence[bool], clusters: Sequence[int], bootstrap: Bootstrap
) -> dict[str, Any]:
    """Mean tokens per answer, the stop token included, with its interval, and the share that stopped by itself."""
    counts = [len(ids) for ids in answer_ids]
    found = mean_interval(counts, clusters, bootstrap).as_json()
    return found | {"stopped": sum(stopped) / len(stopped)}


def variety(answers: Sequence[str]) -> dict[str, Any]:
    """How far answers differ: share of distinct answers, and of distinct words and word pairs (distinct-1, -2).

    distinct-n is that of https://arxiv.org/abs/1510.03055, over all answers together; a policy that fell into one
    answer has a share of 1/n.
    """
    unique = len({answer.strip() for answer in answers})
    words = [answer.split() for answer in answers]
    return {
        "value": unique / len(answers),
        "unique": unique,
        "n": len(answers),
        "distinct_1": _distinct(words, 1),
        "distinct_2": _distinct(words, 2),
    }


def perplexity(model: nn.Module, ids: list[int], *, bos: list[int]) -> dict[str, Any]:
    """Perplexity of a token stream cut into windows of the model's context, weighted by tokens.

    Args:
        ids: The text's tokens, without special tokens.
        bos: What the tokenizer puts before a text; opens every window where there is any.
    """
    window = min(context_of(model) or LONGEST_WINDOW, LONGEST_WINDOW) - len(bos)
    pieces = [bos + ids[start : start + window] for start in range(0, len(ids), window)]
    pieces = [piece for piece in pieces if len(piece) > 1]
    if not pieces:
        raise DataError(f"perplexity_datasets hold {len(ids)} tokens of text; perplexity needs at least 2")
    device = next(model.parameters()).device
    model.eval()
    total, tokens = 0.0, 0
    batch = max(1, TOKENS_AT_ONCE // (window + len(bos)))
    for start in range(0, len(pieces), batch):
        input_ids, mask = _padded(pieces[start : start + batch], device)
        logps = next_token_logps(model, input_ids, mask)
        counted = mask[:, 1:].bool()
        total -= float(logps[counted].sum())
        tokens += int(counted.sum())
    return _as_perplexity(total, tokens) | {"window": window + len(bos)}


def _as_perplexity(nats: float, tokens: int) -> dict[str, Any]:
    mean = nats / tokens
    # A model that broke has no perplexity: past 700 nats a token exp overflows, and NaN is no JSON.
    return {"value": math.exp(mean) if mean < 700 else None, "tokens": tokens}


def pairs_perplexity(losses: Iterable[Losses]) -> dict[str, Any]:
    """Return the perplexity of the answers of `pair_losses`, all data sets together."""
    nats, tokens = np.concatenate(list(losses)).sum(axis=0)
    return _as_perplexity(float(nats), int(tokens))


def text_losses(model: nn.Module, tokenizer: Any, texts: Sequence[str]) -> Losses:
    """Return the nats of each text's predicted tokens and their number, (texts, 2), so that policies compare by text.

    A text without a predicted token has 0 and 0. A text is read alone, in windows of the model's context, each behind
    the tokenizer's BOS where it has one. The first token of a window without BOS is not predicted.
    """
    bos = [tokenizer.bos_token_id] if tokenizer("").get("input_ids", [])[:1] == [tokenizer.bos_token_id] else []
    window = min(context_of(model) or LONGEST_WINDOW, LONGEST_WINDOW) - len(bos)
    device = next(model.parameters()).device
    model.eval()
    found: list[tuple[float, int]] = []
    for text in texts:
        ids = _plain_ids(tokenizer, text)
        pieces = [bos + ids[start : start + window] for start in range(0, len(ids), window)]
        rows = [torch.tensor([piece], device=device) for piece in pieces if len(piece) > 1]
        logps = [next_token_logps(model, row, torch.ones_like(row)) for row in rows]
        found.append((-sum(float(each.sum()) for each in logps), sum(each.numel() for each in logps)))
    if not any(tokens for _, tokens in found):
        raise DataError("perplexity_datasets hold no text of 2 tokens; perplexity needs at least 2")
    return np.array(found, dtype=np.float64)


def common_texts(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> list[str]:
    """Return the texts that policies of all tokenizers read, so that each reads the same letters.

    They are whole texts until `max_tokens` of this tokenizer; if the first has more, it is cut between two letters.
    """
    kept: list[str] = []
    left = max_tokens
    for text in texts:
        count = len(_plain_ids(tokenizer, text))
        if count > left:
            return kept or [_cut(tokenizer, text, left)]
        kept.append(text)
        left -= count
    return kept


def _cut(tokenizer: Any, text: str, max_tokens: int) -> str:
    """Return the longest begin of a text, by bisection, that has at most as many tokens."""
    fits, does_not = 0, len(text)
    while does_not - fits > 1:
        middle = (fits + does_not) // 2
        if len(_plain_ids(tokenizer, text[:middle])) <= max_tokens:
            fits = middle
        else:
            does_not = middle
    return text[:fits]


def _plain_ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    return ids


def pair_losses(model: nn.Module, template: Template, rows: Sequence[Demonstration], batch_size: int) -> Losses:
    """Return the nats of each row's answers, given their prompts, and the number of their tokens, (rows, 2).

    The `text_losses` of an encoder-decoder model.

    Raises: DataError as `pairs_of`.
    """
    found = [pairs_of(template, row, context_of(model)) for row in rows]
    whole = [answer for answers in found for answer in answers]
    prompts, ids = [answer.context for answer in whole], [answer.ids for answer in whole]
    logps = iter(token_logps(model, prompts, ids, temperature=1.0, batch_size=batch_size))
    taken = [[next(logps) for _ in answers] for answers in found]
    sums = [(-sum(float(each.sum()) for each in some), sum(len(each) for each in some)) for some in taken]
    return np.array(sums, dtype=np.float64)


def pairs_of(template: Template, row: Demonstration, context: int | None) -> list[Answer]:
    """Return the answers of a row of `perplexity_datasets`, each behind its prompt, for an encoder-decoder model.

    Args:
        context: tokens that encoder and decoder each read; None: any number. What is longer of an answer is left out.

    Raises: DataError naming the row, if it has no prompt, or one that is too long.
    """
    assert template.sides is not None
    try:
        answers = template.answers(row)
        template.sides.require_read(row, answers, context)
        return [replace(answer, ids=answer.ids[:context], labels=answer.labels[:context]) for answer in answers]
    except DataError as error:
        raise DataError(f"{row.source}: {error}") from error


def _distinct(words: list[list[str]], n: int) -> float | None:
    grams = [tuple(answer[i : i + n]) for answer in words for i in range(len(answer) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None
