"""Sampling behind an encoder, against `generate` of transformers."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from alignment.errors import DataError
from alignment.evaluate.metrics import token_logps
from alignment.rollout.engine import Sampling
from alignment.rollout.sampling import _invert, uniforms
from alignment.rollout.transformers_engine import TransformersEngine
from tests.models import save_tiny_bart, save_tiny_t5

PROMPTS = ["Tell me a story about a small cat.", "What is", "The quick brown fox", "Thank you for asking! 1 2 3"]


@pytest.fixture(scope="module", params=[(save_tiny_t5, 1.5), (save_tiny_bart, 8.0)], ids=["t5", "bart"])
def model(request, tmp_path_factory):
    """A model with its tokenizer; wide weights, so that tokens differ in probability."""
    save, width = request.param
    folder = save(tmp_path_factory.mktemp("models") / "model")
    found, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.mul_(width)
    return found, tokenizer


def ids_of(tokenizer):
    return [tokenizer(text).input_ids for text in PROMPTS]


def generated(model, tokenizer, stop, **options):
    """Answers of `generate` on the padded prompts, up to their stop tokens."""
    batch = tokenizer(PROMPTS, return_tensors="pt", padding=True)
    found = model.generate(**batch, max_new_tokens=12, eos_token_id=stop, **options)[:, 1:].tolist()
    ends = [next((place + 1 for place, token in enumerate(row) if token in stop), len(row)) for row in found]
    return [row[:end] for row, end in zip(found, ends, strict=True)]


def stops_of(model, tokenizer):
    """Tokens that some answers hold, so that rows end at different steps."""
    free = generated(model, tokenizer, [10**6], do_sample=False)
    return [free[0][3], free[1][7]]


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_the_likeliest_answers_are_those_of_generate(model, batch_size):
    found, tokenizer = model
    stops = stops_of(*model)
    engine = TransformersEngine(found, tokenizer.pad_token_id, batch_size)
    answers = engine.generate(ids_of(tokenizer), Sampling(12, temperature=0, stop_token_ids=stops))
    assert [answer.ids for answer in answers] == generated(*model, stops, do_sample=False)
    assert len({len(answer.ids) for answer in answers}) > 1


@pytest.mark.parametrize("how", [{}, {"top_k": 20}, {"top_p": 0.8}])
def test_drawn_answers_are_those_of_generate_with_the_same_random_numbers(model, how, monkeypatch):
    found, tokenizer = model
    stops = stops_of(*model)
    sampling = Sampling(12, temperature=0.8, stop_token_ids=stops, seed=5, **how)
    answers = TransformersEngine(found, tokenizer.pad_token_id, 3).generate(ids_of(tokenizer), sampling)
    numbers = torch.from_numpy(np.stack([uniforms(5, row, 12) for row in range(len(PROMPTS))]))
    step = iter(range(12))
    monkeypatch.setattr(torch, "multinomial", lambda probs, **_: _invert(probs, numbers[:, next(step)])[:, None])
    options = {"do_sample": True, "temperature": 0.8, "top_k": 0, "top_p": 1.0, **how}
    assert [answer.ids for answer in answers] == generated(*model, stops, **options)
    assert len({tuple(answer.ids) for answer in answers}) == len(PROMPTS)


def test_log_probabilities_are_those_of_the_models_own_loss(model):
    found, tokenizer = model
    prompts, answers = ids_of(tokenizer), [tokenizer(text).input_ids for text in reversed(PROMPTS)]
    logps = token_logps(found, prompts, answers, temperature=1.0, batch_size=3)
    for prompt, answer, logp in zip(prompts, answers, logps, strict=True):
        loss = found(input_ids=torch.tensor([prompt]), labels=torch.tensor([answer])).loss
        assert -logp.mean().item() == pytest.approx(loss.item(), rel=1e-5)
        assert len(logp) == len(answer)


def test_log_probabilities_of_drawn_tokens_are_those_of_a_pass_over_the_answer(model):
    found, tokenizer = model
    sampling = Sampling(8, temperature=0.7, seed=3)
    engine = TransformersEngine(found, tokenizer.pad_token_id, 4, with_logp=True)
    answers = engine.generate(ids_of(tokenizer), sampling)
    again = token_logps(found, ids_of(tokenizer), [a.ids for a in answers], temperature=0.7, batch_size=4)
    for answer, logp in zip(answers, again, strict=True):
        assert answer.logp == pytest.approx(logp.tolist(), abs=1e-4)


def test_prompt_and_answer_each_have_the_whole_context(tmp_path):
    folder = save_tiny_bart(tmp_path / "bart")  # of 64 tokens
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    engine = TransformersEngine(model, tokenizer.pad_token_id)
    (answer,) = engine.generate([[5] * 64], Sampling(64, temperature=0))
    assert len(answer.ids) == 64
    with pytest.raises(DataError, match="prompt 0 has 65 tokens"):
        engine.generate([[5] * 65], Sampling(64))
    with pytest.raises(DataError, match=r"does not fit the model's context of 64\. Lower max_new_tokens"):
        engine.generate([[5]], Sampling(65))
