"""What sampling promises: the seed decides, neighbours do not, and nothing leaks in or out."""

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from alignment.errors import DataError
from alignment.rollout.cache import ROOM, RoomyLayer, with_room
from alignment.rollout.engine import Sampling
from alignment.rollout.sampling import BLOCK, FEW, draw, probabilities, uniforms
from alignment.rollout.transformers_engine import TransformersEngine
from tests.models import make_model, make_tokenizer

STOP = 1


@pytest.fixture(scope="module")
def model():
    return make_model(make_tokenizer(), initializer_range=0.3)


@pytest.fixture(scope="module")
def prompts():
    g = np.random.default_rng(0)
    return [g.integers(3, 250, size=length).tolist() for length in (5, 3, 9, 5, 1, 7, 5)]


def engine(model, batch_size=64):
    return TransformersEngine(model, pad_token_id=0, batch_size=batch_size)


def test_greedy_equals_transformers_generate(model, prompts):
    sampling = Sampling(max_new_tokens=8, temperature=0)
    for prompt, ours in zip(prompts, engine(model, batch_size=3).generate(prompts, sampling), strict=True):
        theirs = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=8, do_sample=False,
            eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        assert ours.ids == theirs[0, len(prompt) :].tolist()
        assert not ours.stopped


def test_every_batch_is_reported_once(model, prompts):
    told = []
    watched = TransformersEngine(model, pad_token_id=0, batch_size=3, on_batch=told.append)
    answers = watched.generate(prompts, Sampling(max_new_tokens=8, seed=7))
    assert [len(batch) for batch in told] == [3, 3, 1]
    assert sorted(answer.ids for batch in told for answer in batch) == sorted(answer.ids for answer in answers)


def test_the_seed_decides_and_global_random_state_is_not_used(model, prompts):
    sampling = Sampling(max_new_tokens=8, seed=7)
    torch.manual_seed(1)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    first = engine(model).generate(prompts, sampling)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    torch.manual_seed(2)
    assert engine(model).generate(prompts, sampling) == first
    assert engine(model).generate(prompts, Sampling(max_new_tokens=8, seed=8)) != first


def test_an_answer_depends_on_its_row_alone(model, prompts):
    sampling = Sampling(max_new_tokens=8, stop_token_ids=[STOP], seed=3)
    together = engine(model).generate(prompts, sampling)
    assert engine(model, batch_size=2).generate(prompts, sampling) == together
    assert engine(model).generate(prompts[:3], sampling) == together[:3]
    later = Sampling(max_new_tokens=8, stop_token_ids=[STOP], seed=3, first_row=3)
    assert engine(model).generate(prompts[3:], later) == together[3:]


def test_equal_prompts_get_different_answers(model):
    answers = engine(model).generate([[5, 6, 7]] * 6, Sampling(max_new_tokens=8))
    assert len({tuple(answer.ids) for answer in answers}) == 6


def test_the_stop_token_ends_an_answer_and_is_part_of_it(model, prompts):
    stops = list(range(1, 60))  # a fifth of the vocabulary, so that answers end at many lengths
    answers = engine(model).generate(prompts * 4, Sampling(max_new_tokens=10, stop_token_ids=stops))
    free = engine(model).generate(prompts * 4, Sampling(max_new_tokens=10))
    assert {answer.stopped for answer in answers} == {True, False}
    for answer, whole in zip(answers, free, strict=True):
        ends = [place for place, token in enumerate(whole.ids) if token in stops]
        assert answer.stopped == bool(ends)
        assert answer.ids == whole.ids[: ends[0] + 1 if ends else 10]


def test_padding_equal_to_the_stop_token_ends_nothing(model, prompts):
    sampling = Sampling(max_new_tokens=8, stop_token_ids=[STOP], seed=3)
    expected = engine(model).generate(prompts, sampling)
    assert TransformersEngine(model, pad_token_id=STOP).generate(prompts, sampling) == expected


def test_the_models_own_generation_configuration_does_not_leak_in(model, prompts):
    sampling = Sampling(max_new_tokens=8)
    expected = engine(model).generate(prompts, sampling)
    before = model.generation_config
    try:
        model.generation_config = type(before)(
            eos_token_id=list(range(100)), repetition_penalty=9.0, top_k=1, do_sample=True, max_length=6
        )
        assert engine(model).generate(prompts, sampling) == expected
    finally:
        model.generation_config = before


def test_training_mode_is_restored_and_dropout_never_samples(model, prompts):
    model.train()
    try:
        engine(model).generate(prompts[:1], Sampling(max_new_tokens=1))
        assert model.training
    finally:
        model.eval()


def test_a_prompt_that_does_not_fit_is_refused(model):
    with pytest.raises(
        DataError, match=r"prompt 1 has 250 tokens; with max_new_tokens 10 .* Leave out .* than 246 tokens"
    ):
        engine(model).generate([[3], [3] * 250], Sampling(max_new_tokens=10))
    with pytest.raises(DataError, match="prompt 0 has no tokens"):
        engine(model).generate([[]], Sampling(max_new_tokens=10))


def test_probabilities_agree_with_transformers_warpers():
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(20, 50, generator=torch.Generator().manual_seed(0)) * 3
    sampling = Sampling(max_new_tokens=1, temperature=0.7, top_p=0.8, top_k=12)
    scores = logits
    for warper in (TemperatureLogitsWarper(0.7), TopKLogitsWarper(12), TopPLogitsWarper(0.8)):
        scores = warper(None, scores)
    torch.testing.assert_close(probabilities(logits, sampling), scores.softmax(-1))


@pytest.mark.parametrize("sampling", [{"temperature": 1e-38}, {"temperature": 1e-300}, {"top_p": 1e-46}])
def test_settings_near_zero_draw_the_likeliest_token(sampling):
    logits = torch.tensor([[1.0, 9.0, 3.0], [80.0, -80.0, 79.0]])
    numbers = torch.tensor([0.999, 0.5], dtype=torch.float64)
    settings = Sampling(1, **{"temperature": 1.0, **sampling})
    assert draw(logits, settings, numbers).tolist() == [1, 0]


def test_draw_inverts_the_cumulative_distribution():
    # probabilities 1/8, 0, 1/2, 3/8, 0: a number below 1/8 is token 0, below 5/8 token 2, else token 3
    logits = torch.tensor([1.0, 0.0, 4.0, 3.0, 0.0]).log().expand(6, -1)
    uniform = torch.tensor([0.0, 0.1249, 0.125, 0.6249, 0.625, 1 - 1e-16], dtype=torch.float64)
    tokens = draw(logits, Sampling(max_new_tokens=1), uniform)
    assert tokens.tolist() == [0, 0, 2, 2, 3, 3]


@pytest.mark.parametrize("vocabulary", [5, 1000, FEW + BLOCK, 2000])
def test_draw_is_the_plain_inversion(vocabulary):
    g = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(2000, vocabulary, generator=g)
    logits[torch.rand(2000, vocabulary, generator=g) < 0.5] = -torch.inf
    logits[:, 3] = 0.0
    uniform = torch.rand(2000, generator=g, dtype=torch.float64)
    uniform[:4] = torch.tensor([0.0, 1 - 2**-53, 2**-60, 0.5])
    tokens = draw(logits, Sampling(max_new_tokens=1), uniform)
    ends = logits.softmax(-1).double().cumsum(-1)
    plain = torch.searchsorted(ends, uniform.unsqueeze(-1) * ends[:, -1:], right=True).squeeze(-1)
    assert int((tokens != plain).sum()) <= 1  # float32 sums move a border by some 1e-7
    assert bool(logits.gather(-1, tokens.unsqueeze(-1)).isfinite().all())  # none of probability zero


def test_room_ahead_holds_what_a_plain_cache_holds():
    g = torch.Generator().manual_seed(0)
    plain, roomy = DynamicCache(), DynamicCache()
    for step in range(2 * ROOM + 5):
        rows, columns = (2 if step > 70 else 3), (4 if step == 0 else 1)
        keys, values = (torch.randn(rows, 2, columns, 8, generator=g) for _ in range(2))
        for ours, theirs in zip(roomy.update(keys, values, 0), plain.update(keys, values, 0), strict=True):
            assert torch.equal(ours, theirs)
        if step == 0:
            with_room(roomy)
            assert type(roomy.layers[0]) is RoomyLayer
        if step == 70:
            for cache in (plain, roomy):
                cache.batch_select_indices(torch.tensor([0, 2]))
        assert roomy.get_seq_length() == plain.get_seq_length() == 4 + step


def test_a_cache_with_room_for_all_that_comes_is_allocated_once():
    g = torch.Generator().manual_seed(0)
    plain, roomy = DynamicCache(), DynamicCache()
    held = []
    for step in range(200):
        rows, columns = (2 if step > 70 else 3), (4 if step == 0 else 1)
        keys, values = (torch.randn(rows, 2, columns, 8, generator=g) for _ in range(2))
        for ours, theirs in zip(roomy.update(keys, values, 0), plain.update(keys, values, 0), strict=True):
            assert torch.equal(ours, theirs)
        if step == 0:
            with_room(roomy, 199)
        if step == 70:
            for cache in (plain, roomy):
                cache.batch_select_indices(torch.tensor([0, 2]))
        held.append([states.data_ptr() for states in (roomy.layers[0].keys, roomy.layers[0].values)])
    assert all(pointers == held[0] for pointers in held)


def test_sampled_frequencies_are_the_models():
    logits = torch.tensor([0.0, 1.0, 2.0])
    uniform = torch.from_numpy(np.concatenate([uniforms(0, row, 1) for row in range(20_000)]))
    counts = torch.bincount(draw(logits.expand(20_000, -1), Sampling(max_new_tokens=1), uniform), minlength=3)
    # standard error of a share is at most 0.5 / sqrt(20,000) = 0.0035; four of them
    torch.testing.assert_close(counts / 20_000, logits.softmax(-1), atol=0.0142, rtol=0)
