"""Draws that rounding could change are found; few others are."""

import pytest
import torch

from alignment.rollout.close_calls import is_close
from alignment.rollout.engine import Sampling
from alignment.rollout.sampling import draw

ROWS = 20_000
UNITS = 2.0**-23 * 20  # moves of a logit in units of the largest, 20 of the 64 that are allowed for

KINDS = {
    "greedy": Sampling(1, temperature=0),
    "whole": Sampling(1),
    "cold": Sampling(1, temperature=0.3),
    "top-p": Sampling(1, top_p=0.8),
    "top-k": Sampling(1, top_k=5),
    "both": Sampling(1, temperature=0.7, top_p=0.9, top_k=20),
}


def drawn(sampling, logits, uniform):
    tokens = draw(logits, sampling, uniform)
    return tokens, is_close(logits, sampling, uniform, tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_only_close_draws_change_with_rounding(kind):
    torch.manual_seed(0)
    logits = torch.randn(ROWS, 64) * 3
    logits[: ROWS // 2] = (logits[: ROWS // 2] * 500).round() / 500  # more ties than chance gives
    uniform = torch.rand(ROWS, dtype=torch.float64)
    tokens, close = drawn(KINDS[kind], logits, uniform)
    moved = logits + (torch.rand_like(logits) * 2 - 1) * logits.abs().amax(-1, keepdim=True) * UNITS
    changed = draw(moved, KINDS[kind], uniform) != tokens
    assert not (changed & ~close).any()
    assert close[ROWS // 2 :].float().mean() < 0.01


@pytest.mark.parametrize(
    ("sampling", "logits", "uniform"),
    [
        (Sampling(1, temperature=0), [1.0, 1.0, 0.0], 0.5),  # two are the likeliest
        (Sampling(1), [0.0, 0.0, 0.0, 0.0], 0.5),  # the second ends at 0.5
        (Sampling(1, top_k=1), [1.0, 1.0, 0.0], 0.25),  # the second is as likely as the first
        (Sampling(1, top_p=0.5), [0.0, 0.0, 0.0, 0.0], 0.1),  # two are kept, of four alike
    ],
)
def test_a_tie_is_close(sampling, logits, uniform):
    _, close = drawn(sampling, torch.tensor([logits]), torch.tensor([uniform], dtype=torch.float64))
    assert close.item()


def test_a_token_that_cannot_be_drawn_does_not_hide_the_size_of_the_others():
    logits = torch.tensor([[-torch.inf, 5.0, 0.0]])
    _, close = drawn(Sampling(1), logits, torch.tensor([0.5], dtype=torch.float64))
    assert not close.item()
