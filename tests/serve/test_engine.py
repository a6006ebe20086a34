"""The engine by itself: memory stays within its bounds, and an error ends only what it concerns."""

import threading
import time

import pytest
import torch

from alignment.errors import ModelError
from alignment.rollout.engine import Sampling
from alignment.rollout.transformers_engine import TransformersEngine
from alignment.serve.answer import Answer, Wanted
from alignment.serve.engine import Bounds, Engine
from alignment.serving.batching import Busy
from tests.models import make_model, make_tokenizer

TOKENIZER = make_tokenizer()
PROMPTS = [[10 + row] * (3 + 7 * row % 40) for row in range(12)]


@pytest.fixture
def model():
    return make_model(TOKENIZER, initializer_range=0.3)


class Running:
    """An engine, and answers that wait for it."""

    def __init__(self, model, **bounds):
        self.engine = Engine(model, pad_token_id=0, bounds=Bounds(**bounds))
        self.pieces, self.arrived = {}, threading.Condition()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.engine.close()

    def ask(self, number, prompt, sampling, **wanted):
        def deliver(piece):
            with self.arrived:
                self.pieces[number] = piece
                self.arrived.notify()

        options = {"tokenizer": TOKENIZER, "adapter": None, "deliver": deliver}
        answer = Answer(0, prompt, Wanted(sampling, **wanted), seed=(sampling.seed, 0), **options)
        self.engine.submit([answer])
        return answer

    def wait(self, count):
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.pieces) == count, 30)
        return [self.pieces[number] for number in sorted(self.pieces)]


def expected(model, prompt, sampling):
    return TransformersEngine(model, 0).generate([prompt], sampling)[0].ids


def test_answers_are_equal_with_little_memory(model):
    """With room for two rows at once, answers that joined last give way and go on later."""
    sampling = [Sampling(40, temperature=0.8, top_p=0.95, seed=row) for row in range(len(PROMPTS))]
    with Running(model, rows=8, tokens=2 * 64) as running:
        put_back = []
        real = running.engine._put_back
        running.engine._put_back = lambda entries: put_back.extend(entries) or real(entries)
        largest = []
        real_step = running.engine.sequences.step

        def step(tokens):
            logits = real_step(tokens)
            keys = running.engine.sequences._layers[0][0]
            largest.append(keys.shape[0] * keys.shape[2])
            return logits

        running.engine.sequences.step = step
        answers = [
            running.ask(row, prompt, own, is_seeded=True)
            for row, (prompt, own) in enumerate(zip(PROMPTS, sampling, strict=True))
        ]
        running.wait(len(PROMPTS))
    assert put_back
    assert max(largest) <= 2 * 64
    for answer, prompt, own in zip(answers, PROMPTS, sampling, strict=True):
        assert answer.ids == expected(model, prompt, own)


def test_a_long_prompt_does_not_hold_up_others(model, monkeypatch):
    monkeypatch.setattr("alignment.serve.engine.PART", 16)
    with Running(model, rows=8) as running:
        first = running.ask(0, [5, 6], Sampling(200, seed=0))
        while len(first.ids) < 3:
            time.sleep(0.001)
        long = running.ask(1, [7] * 200, Sampling(1, temperature=0))
        at = []
        real = running.engine._assign
        running.engine._assign = lambda names: at.append((len(first.ids), len(long.ids))) or real(names)
        running.wait(2)
    assert long.ids == expected(model, [7] * 200, Sampling(1, temperature=0))
    assert len({steps for steps, written in at if not written}) >= 200 // 16 - 1


def test_a_full_queue_refuses(model):
    with Running(model, rows=1, waiting=3) as running:
        running.engine.between_steps(lambda: time.sleep(0.5))
        for row in range(3):
            running.ask(row, PROMPTS[row], Sampling(2, seed=0))
        with pytest.raises(Busy, match="3 answers are waiting; the limit is 3"):
            running.ask(3, PROMPTS[3], Sampling(2, seed=0))
        assert len(running.wait(3)) == 3


def test_an_error_of_the_model_ends_its_answers_and_no_others(model):
    def broken(*_, **__):
        raise RuntimeError("out of memory")

    with Running(model, rows=8) as running:
        real = running.engine.sequences.step
        running.engine.sequences.step = broken
        running.ask(0, PROMPTS[0], Sampling(5, seed=0))
        (piece,) = running.wait(1)
        assert str(piece.error) == "out of memory"
        answer = running.ask(1, PROMPTS[1], Sampling(5, seed=0))
        running.wait(2)
        assert answer.ids == expected(model, PROMPTS[1], Sampling(5, seed=0))
        assert running.engine.sequences.step is not real


def test_logits_that_are_not_finite_end_their_answer_alone(model):
    with torch.no_grad():
        model.get_input_embeddings().weight[10] = torch.nan
    with Running(model, rows=8) as running:
        for row in range(4):
            running.ask(row, PROMPTS[row], Sampling(5, seed=row), is_seeded=True)
        pieces = running.wait(4)
    assert isinstance(pieces[0].error, ModelError)
    assert [piece.error for piece in pieces[1:]] == [None] * 3


def test_answers_that_nobody_waits_for_leave(model):
    with Running(model, rows=2) as running:
        answers = [running.ask(row, PROMPTS[row], Sampling(200, seed=row)) for row in range(6)]
        while not all(answer.ids for answer in answers[:2]):
            time.sleep(0.001)
        running.engine.cancel([answers[0], *answers[2:5]])
        running.wait(2)
        assert running.engine.in_flight == 0
    assert [len(answer.ids) for answer in answers[2:5]] == [0, 0, 0]
    assert answers[5].ids == expected(model, PROMPTS[5], Sampling(200, seed=5))
