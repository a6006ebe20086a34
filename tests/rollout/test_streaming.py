"""Sampling a token at a time gives the tokens of the engine that samples whole answers."""

import numpy as np
import pytest

from alignment.errors import DataError
from alignment.rollout.engine import Sampling
from alignment.rollout.streaming import Row, stream
from alignment.rollout.transformers_engine import TransformersEngine
from tests.models import make_model, make_tokenizer

STOPS = (1, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50)


@pytest.fixture(scope="module")
def model():
    return make_model(make_tokenizer(), initializer_range=0.3)


@pytest.fixture(scope="module")
def prompts():
    g = np.random.default_rng(0)
    return [g.integers(3, 250, size=length).tolist() for length in (5, 3, 9, 5)]


def streamed(model, rows, sampling):
    found = [[] for _ in rows]
    for tokens in stream(model, rows, sampling, pad_token_id=0):
        for ids, token in zip(found, tokens, strict=True):
            if token is not None:
                ids.append(token)
    return found


def test_each_row_is_what_the_engine_samples_at_its_place(model, prompts):
    sampling = Sampling(max_new_tokens=24, temperature=1.5, top_p=0.9, stop_token_ids=STOPS, seed=7)
    wanted = TransformersEngine(model, pad_token_id=0).generate(prompts, sampling)
    rows = [Row(prompt, STOPS, 24, place) for place, prompt in enumerate(prompts)]
    found = streamed(model, rows, sampling)
    assert found == [answer.ids for answer in wanted]
    assert {answer.stopped for answer in wanted} == {True, False}
    assert streamed(model, rows[2:3], sampling) == found[2:3]  # without the others


def test_each_row_has_its_own_stops_and_length(model, prompts):
    sampling = Sampling(max_new_tokens=1, seed=7)  # a row's own length counts
    free = streamed(model, [Row(prompt, (), 9) for prompt in prompts], sampling)
    assert [len(ids) for ids in free] == [9, 9, 9, 9]
    rows = [Row(prompts[0], (), 4), Row(prompts[1], [free[1][2]], 9), Row(prompts[2], (), 9)]
    assert streamed(model, rows, sampling) == [free[0][:4], free[1][: free[1].index(free[1][2]) + 1], free[2]]


def test_an_empty_prompt_is_refused(model):
    with pytest.raises(DataError, match="no tokens"):
        next(stream(model, [Row([], (), 4)], Sampling(4), pad_token_id=0))


def test_the_adapters_of_rows_leave_with_them(model, prompts):
    calls = []

    class Adapters:
        def assign(self, names):
            calls.append(names)

        def select(self, places):
            calls.append(places)

    rows = [Row(prompts[0], (), 2, adapter="a"), Row(prompts[1], (), 4), Row(prompts[2], (), 3, adapter="b")]
    for _ in stream(model, rows, Sampling(4), pad_token_id=0, adapters=Adapters()):
        pass
    assert calls == [["a", None, "b"], [1, 2], [0], None]
