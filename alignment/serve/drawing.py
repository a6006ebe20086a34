"""Drawing the next token of each answer in a batch, each by its own settings."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from alignment.rollout.close_calls import is_close
from alignment.rollout.engine import Sampling
from alignment.rollout.sampling import draw
from alignment.serve.answer import Answer, TokenLogp

Alone = Callable[[Answer], Tensor]  # the logits of an answer's next token, (vocabulary,), computed without the others
Drawn = tuple[int, TokenLogp | None]


def draw_each(
    answers: Sequence[Answer], logits: Tensor, *, alone: Alone, computed_in: torch.dtype
) -> list[Drawn | None]:
    """Draw a token for each answer; None where its logits are not finite.

    Args:
        logits: (answers, vocabulary). alone: decides the draws of seeded answers that rounding could change, since
            rounding depends on the batch. computed_in: the type of the model's weights.
    """
    logits = logits.float()
    usable = logits.amax(-1).isfinite().tolist()
    adjusted = _adjusted(answers, logits)
    uniform = torch.tensor([answer.random.random() for answer in answers], dtype=torch.float64, device=logits.device)
    tokens = [0] * len(answers)
    close: list[int] = []
    for sampling, places in _alike(answers, usable).items():
        rows, numbers = (adjusted, uniform) if len(places) == len(answers) else (adjusted[places], uniform[places])
        drawn = draw(rows, sampling, numbers)
        for place, token in zip(places, drawn.tolist(), strict=True):
            tokens[place] = token
        if any(answers[place].wanted.is_seeded for place in places):
            unsure = is_close(rows, sampling, numbers, drawn, computed_in).tolist()
            close += [place for place, is_unsure in zip(places, unsure, strict=True) if is_unsure]
    for place in close:
        answer = answers[place]
        if answer.wanted.is_seeded:
            own = _adjusted([answer], alone(answer).float().unsqueeze(0))
            tokens[place] = int(draw(own, answer.distribution, uniform[place : place + 1]))
    logps = _logps(answers, logits, tokens)
    return [(tokens[place], logps.get(place)) if usable[place] else None for place in range(len(answers))]


def _alike(answers: Sequence[Answer], usable: Sequence[bool]) -> dict[Sampling, list[int]]:
    groups: dict[Sampling, list[int]] = {}
    for place, answer in enumerate(answers):
        if usable[place]:
            groups.setdefault(answer.distribution, []).append(place)
    return groups


def _adjusted(answers: Sequence[Answer], logits: Tensor) -> Tensor:
    """Return logits with bias and penalties: presence once, frequency times the count, of the answer's own tokens."""
    changed = logits
    for place, answer in enumerate(answers):
        change = dict(answer.wanted.bias)
        for token, count in answer.counts.items():
            penalty = answer.wanted.presence_penalty + count * answer.wanted.frequency_penalty
            change[token] = change.get(token, 0.0) - penalty
        if change:
            changed = logits.clone() if changed is logits else changed
            tokens = torch.tensor(list(change), device=logits.device)
            changed[place, tokens] += torch.tensor(list(change.values()), device=logits.device)
    return changed


def _logps(answers: Sequence[Answer], logits: Tensor, tokens: Sequence[int]) -> dict[int, TokenLogp]:
    places = [place for place, answer in enumerate(answers) if answer.wanted.logprobs is not None]
    if not places:
        return {}
    logps = logits[places].log_softmax(-1)
    most = max(answers[place].wanted.logprobs or 0 for place in places)
    chosen = [tokens[place] for place in places]
    return dict(zip(places, token_logps(logps, chosen, most), strict=True))


def token_logps(logps: Tensor, tokens: Sequence[int], top: int) -> list[TokenLogp]:
    """Return the log-probabilities of tokens with those of the likeliest.

    Args:
        logps: (tokens, vocabulary). top: how many of the likeliest.
    """
    own = logps.gather(-1, torch.tensor(tokens, device=logps.device).unsqueeze(-1)).squeeze(-1).tolist()
    best = logps.topk(min(top, logps.shape[-1]), dim=-1)
    rows = zip(tokens, own, best.indices.tolist(), best.values.tolist(), strict=True)
    return [TokenLogp(token, logp, tuple(zip(ids, values, strict=True))) for token, logp, ids, values in rows]
