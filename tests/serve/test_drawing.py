"""Draws of a batch: a seeded answer that rounding could change is decided alone."""

import pytest
import torch

from alignment.rollout.engine import Sampling
from alignment.serve.answer import Answer, Wanted
from alignment.serve.drawing import draw_each
from tests.models import make_tokenizer

TOKENIZER = make_tokenizer()
TIE = torch.tensor([[1.0, 1.0 + 1e-6, 0.0]])  # in this batch token 1 is the likeliest by rounding


def answer(temperature=0.0, **wanted):
    sampling = Sampling(5, temperature)
    options = {"tokenizer": TOKENIZER, "adapter": None, "deliver": lambda _: None}
    return Answer(0, [5], Wanted(sampling, **wanted), seed=(0, 0), **options)


def drawn(answers, logits, alone):
    return [one[0] for one in draw_each(answers, logits, alone=alone, computed_in=torch.float32)]


def test_a_close_draw_of_a_seeded_answer_is_decided_alone():
    asked = []

    def alone(one):
        asked.append(one)
        return torch.tensor([1.0 + 1e-6, 1.0, 0.0])

    seeded, other, sure = answer(is_seeded=True), answer(), answer(is_seeded=True)
    logits = torch.cat([TIE, TIE, torch.tensor([[0.0, 0.0, 3.0]])])
    assert drawn([seeded, other, sure], logits, alone) == [0, 1, 2]
    assert asked == [seeded]


@pytest.mark.parametrize("change", [{"bias": {2: 9.0}}, {"presence_penalty": 1.0}])
def test_bias_and_penalties_count_in_the_pass_alone(change):
    one = answer(is_seeded=True, **change)
    one.counts = {0: 1}
    (token,) = drawn([one], torch.tensor([[1.0, 0.0, 0.0]]), lambda _: torch.tensor([1.0, 0.5, 0.0]))
    assert token == (2 if "bias" in change else 1)


def test_each_answer_has_its_own_settings():
    logits = torch.tensor([[0.0, 1.0, 5.0]] * 3)
    rows = [answer(0.0), answer(1.0), answer(1.0)]
    rows[1].random = rows[2].random = type("Last", (), {"random": staticmethod(lambda: 0.0)})
    assert drawn(rows, logits, None) == [2, 0, 0]
