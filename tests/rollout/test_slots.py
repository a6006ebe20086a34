"""Sequences that join and leave at any step: each computes as if it were alone."""

import random

import pytest
import torch
from transformers import AutoModelForCausalLM

from alignment.config.schema import ModelKeys, ProxyEntry
from alignment.errors import ModelError
from alignment.policy.proxy import proxy_tuned
from alignment.rollout.reading import Reading
from alignment.rollout.slots import Apart, Slots, sequences_of
from tests.models import make_model, make_tokenizer, save_tiny_model

TOGETHER = ["gpt2", "llama3", "opt", "qwen3"]
NOT_TOGETHER = ["bloom", "falcon", "gemma3", "mistral"]  # ALiBi, windows
OTHERS = ["cohere", "gptneox", "granite", "olmo2", "phi", "glm", "qwen25", "r1"]


class Followed:
    """Sequences with the tokens of each, whose logits are compared with a pass over these tokens alone."""

    def __init__(self, model, part=16):
        self.model, self.random = model, random.Random(0)
        self.sequences = sequences_of(model, part)
        self.rows = []

    def tokens(self, count):
        return [self.random.randrange(250) for _ in range(count)]

    def join(self, length):
        ids = self.tokens(length)
        reading = Reading(self.model, [ids], 0, self.sequences.part)
        while (logits := reading.advance()) is None:
            pass
        self.sequences.join(reading, [0])
        self.rows.append(ids)
        self.check(logits, [ids])

    def step(self):
        tokens = self.tokens(len(self.rows))
        logits = self.sequences.step(tokens)
        for row, token in zip(self.rows, tokens, strict=True):
            row.append(token)
        self.check(logits, self.rows)

    def leave(self, place):
        self.sequences.leave(place)
        self.rows[place] = self.rows[-1]
        self.rows.pop()

    @torch.no_grad()
    def check(self, logits, rows):
        for found, ids in zip(logits, rows, strict=True):
            torch.testing.assert_close(found, self.model(torch.tensor([ids])).logits[0, -1], rtol=1e-4, atol=1e-4)


def follow(model):
    """Rows join beside others, grow over the next size of the memory, and leave from the middle and the end."""
    followed = Followed(model)
    followed.join(5)
    followed.join(40)  # read in parts
    for step in range(14):
        if step in (2, 8):
            followed.join(3 if step == 2 else 62)
        if step == 5:
            followed.leave(0)
        if step == 11:
            followed.leave(len(followed.rows) - 1)
        followed.step()
    return followed.sequences


def test_rows_of_different_lengths_compute_as_alone():
    assert isinstance(follow(make_model(make_tokenizer(), initializer_range=0.3)), Slots)


def kind_of(shared, name):
    return AutoModelForCausalLM.from_pretrained(shared / "models/kinds" / name).eval()


@pytest.mark.parametrize("name", [*TOGETHER, *[pytest.param(name, marks=pytest.mark.slow) for name in OTHERS]])
def test_models_without_windows_decode_together(shared, name):
    assert isinstance(follow(kind_of(shared, name)), Slots)


@pytest.mark.parametrize("name", NOT_TOGETHER)
def test_other_models_decode_apart(shared, name):
    assert isinstance(follow(kind_of(shared, name)), Apart)


def test_a_proxy_decodes_together(tmp_path):
    base, tuned, untuned = (
        str(save_tiny_model(tmp_path / str(seed), seed=seed, initializer_range=0.3)) for seed in range(3)
    )
    keys = ModelKeys(model_name_or_path=base)
    model = proxy_tuned(
        AutoModelForCausalLM.from_pretrained(base), keys, ProxyEntry(tuned=tuned, untuned=untuned, alpha=0.5)
    )
    assert isinstance(follow(model), Slots)


def test_prompts_that_are_read_together_join_as_often_as_they_are_wanted():
    model = make_model(make_tokenizer(), initializer_range=0.3)
    followed = Followed(model)
    prompts = [followed.tokens(3), followed.tokens(9)]
    reading = Reading(model, prompts, 0, 16)
    followed.check(reading.advance(), prompts)
    followed.sequences.join(reading, [1, 0, 1])
    followed.rows = [list(prompts[place]) for place in (1, 0, 1)]
    followed.step()
    followed.step()


def test_sequences_apart_are_read_apart(shared):
    model = kind_of(shared, "bloom")
    reading = Reading(model, [[1, 2], [3, 4]], 0, None)
    reading.advance()
    with pytest.raises(ModelError, match="read apart"):
        sequences_of(model, 16).join(reading, [0, 1])
