"""Continuous batching is one more way to the same distribution; it says how likely what it sampled was."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from alignment.errors import ModelError
from alignment.ops.logprobs import token_logp
from alignment.rollout.continuous_batching import ContinuousBatchingEngine
from alignment.rollout.engine import Sampling
from alignment.rollout.transformers_engine import TransformersEngine
from tests.models import make_model, make_tokenizer

PROMPTS = [[5, 9, 77, 30], [8, 8, 40], [100, 3, 61, 62, 63, 64, 65], [200], [5, 9, 77, 30]]


@pytest.fixture(scope="module")
def model():
    return make_model(make_tokenizer(), initializer_range=0.3)


def logp_of(model, prompt, ids, temperature=1.0):
    tokens = torch.tensor([prompt + ids])
    logits = model(input_ids=tokens).logits[:, len(prompt) - 1 : -1]
    return token_logp(logits, tokens[:, len(prompt) :], temperature=temperature)[0]


def test_greedy_answers_are_those_of_our_own_loop(model):
    sampling = Sampling(max_new_tokens=6, temperature=0, stop_token_ids=[1])
    paged = ContinuousBatchingEngine(model, 0, batch_size=2).generate(PROMPTS, sampling)
    plain = TransformersEngine(model, 0).generate(PROMPTS, sampling)
    assert [(c.ids, c.stopped) for c in paged] == [(c.ids, c.stopped) for c in plain]


@torch.no_grad()
def test_log_probabilities_are_the_models_at_the_sampling_temperature(model):
    sampling = Sampling(max_new_tokens=6, temperature=0.7, seed=3)
    for prompt, answer in zip(PROMPTS, ContinuousBatchingEngine(model, 0).generate(PROMPTS, sampling), strict=True):
        torch.testing.assert_close(
            torch.tensor(answer.logp), logp_of(model, prompt, answer.ids, 0.7), rtol=0, atol=1e-4
        )


def test_the_seed_decides_and_nothing_is_left_behind(model):
    engine = ContinuousBatchingEngine(model, 0)
    before, attention = torch.get_rng_state(), model.config._attn_implementation
    answers = {}
    for seed in (1, 2):
        calls = [engine.generate(PROMPTS, Sampling(max_new_tokens=6, seed=seed)) for _ in range(2)]
        assert calls[0] == calls[1]
        answers[seed] = [c.ids for c in calls[0]]
    assert answers[1] != answers[2]
    assert answers[1][0] != answers[1][4]  # equal prompts
    assert torch.equal(torch.get_rng_state(), before)
    assert model.config._attn_implementation == attention


def test_any_of_several_stop_tokens_ends_an_answer(model):
    stops = list(range(1, 120))
    found = ContinuousBatchingEngine(model, 0).generate(PROMPTS, Sampling(8, stop_token_ids=stops, seed=5))
    assert any(c.stopped for c in found)
    for completion in found:
        assert completion.stopped == (completion.ids[-1] in stops)
        assert not set(completion.ids[:-1]) & set(stops)
        assert completion.stopped or len(completion.ids) == 8


def test_a_lost_request_is_an_error(model, monkeypatch):
    monkeypatch.setattr(type(model), "generate_batch", lambda *_, **__: {})
    with pytest.raises(ModelError, match="5 of 5 requests were lost"):
        ContinuousBatchingEngine(model, 0).generate(PROMPTS, Sampling(max_new_tokens=4))


@pytest.mark.parametrize("name", ["page_size", "block_size"])
def test_the_page_is_sized_by_the_name_that_the_library_has_for_it(model, monkeypatch, name):
    fields = ["return_logprobs", "seed", "num_blocks", "max_batch_tokens", "max_requests_per_batch", "use_cuda_graph"]
    given = dataclasses.make_dataclass("Given", [(field, object, None) for field in [*fields, name]])
    monkeypatch.setattr("transformers.ContinuousBatchingConfig", given)
    found = ContinuousBatchingEngine(model, 0, batch_size=2)._configuration(PROMPTS, Sampling(max_new_tokens=60))
    assert getattr(found, name) == 32
    assert found.num_blocks == 2 * (3 + 1)  # two sequences of 67 tokens, three pages each, and one more


def test_half_of_a_gpus_free_memory_is_left_to_training():
    on_gpu = SimpleNamespace(generate_batch=None, device=torch.device("cuda"))
    found = ContinuousBatchingEngine(on_gpu, 0)._configuration(PROMPTS, Sampling(max_new_tokens=60))
    assert found.max_memory_percent == 0.5
