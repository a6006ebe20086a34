"""Decoding with fixed shapes gives the answers of a growing cache, also where only recorded operations are repeated."""

import pytest
import torch
import transformers

from alignment.errors import ModelError
from alignment.rollout.buckets import bucket
from alignment.rollout.engine import Sampling
from alignment.rollout.static_batch import StaticDecoder, static_decoder, try_step
from alignment.rollout.steps import StepInputs
from alignment.rollout.transformers_engine import LOOK_EVERY, TransformersEngine
from tests.models import make_model, make_tokenizer
from tests.rollout.recorded import Recorder
from tests.rollout.test_waiting import CLASSES, PROMPTS, SIZES, Waits

STOPS = list(range(1, 12))


@pytest.fixture(scope="module")
def model():
    return make_model(make_tokenizer(), initializer_range=0.3)


def static(model, capture=None, **keys):
    return TransformersEngine(model, 0, decoder=StaticDecoder(model, capture), **keys)


def ids(answers):
    return [(answer.ids, answer.stopped) for answer in answers]


def test_buckets_are_powers_of_two_and_one_and_a_half_times_these():
    assert [bucket(count) for count in range(1, 18)] == [1, 2, 3, 4, 6, 6, 8, 8, 12, 12, 12, 12, 16, 16, 16, 16, 24]
    assert [bucket(count, 64) for count in (1, 64, 65, 128, 129, 193, 257)] == [64, 64, 128, 128, 192, 256, 384]


@pytest.mark.parametrize("stops", [[], STOPS], ids=["to the end", "stopping"])
@pytest.mark.parametrize("prompts", [PROMPTS * 4, [[5, 9], [8, 8]]], ids=["padded", "even"])
@pytest.mark.parametrize("keys", [{"temperature": 0.0}, {"top_p": 0.9, "top_k": 50}, {"temperature": 0.7}], ids=str)
@pytest.mark.parametrize("look_every", [None, LOOK_EVERY])
def test_the_answers_are_those_of_a_growing_cache(model, prompts, stops, keys, look_every):
    sampling = Sampling(max_new_tokens=80, stop_token_ids=stops, seed=3, **keys)
    expected = TransformersEngine(model, 0).generate(prompts, sampling)
    recorder = Recorder()
    assert ids(static(model, look_every=look_every).generate(prompts, sampling)) == ids(expected)
    assert ids(static(model, recorder, look_every=look_every).generate(prompts, sampling)) == ids(expected)
    assert recorder.captures
    assert recorder.repeats > 2 * recorder.captures


@pytest.mark.parametrize("name", [name for name, (_, takes) in CLASSES.items() if takes])
def test_the_answers_are_those_of_a_growing_cache_for_each_class(name):
    config = getattr(transformers, f"{name}Config")(
        vocab_size=300, pad_token_id=0, bos_token_id=2, eos_token_id=1, initializer_range=0.3,
        **SIZES, **CLASSES[name][0],
    )  # fmt: skip
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    sampling = Sampling(max_new_tokens=12, seed=3)
    expected = TransformersEngine(model, 0).generate(PROMPTS, sampling)
    static_decoder(model)
    assert ids(static(model, Recorder()).generate(PROMPTS, sampling)) == ids(expected)


@pytest.mark.parametrize("name", [name for name, (_, takes) in CLASSES.items() if not takes])
def test_classes_with_masks_of_their_own_are_refused(name):
    keys, _ = CLASSES[name]
    kind = name.removesuffix("Window").removesuffix("Eager")
    sizes = {"hidden_size": 32, "n_layer": 2, "n_head": 4} if kind == "Bloom" else SIZES
    config = getattr(transformers, f"{kind}Config")(vocab_size=300, pad_token_id=0, eos_token_id=1, **sizes, **keys)
    with pytest.raises(ModelError, match=r"cannot decode with fixed shapes: .*; use cache_implementation: dynamic"):
        static_decoder(getattr(transformers, f"{kind}ForCausalLM")(config))


def test_a_graph_is_captured_once_for_each_bucket_and_kept_for_the_next_call(model):
    recorder, shapes = Recorder(), set()
    engine = static(model, recorder, keeps_memory=True, look_every=8)
    run = engine.decoder.graphs.run

    def watched(bucket, work):
        shapes.add(bucket[:2])
        run(bucket, work)

    engine.decoder.graphs.run = watched
    sampling = Sampling(max_new_tokens=100, stop_token_ids=STOPS, seed=3)
    first = engine.generate(PROMPTS * 4, sampling)
    assert len({rows for rows, _ in shapes}) > 2
    assert len({columns for _, columns in shapes}) == 2
    captured = recorder.captures
    assert captured <= len(shapes)
    pointers = engine.decoder.memory.tokens.data_ptr()
    assert ids(engine.generate(PROMPTS * 4, sampling)) == ids(first)
    assert recorder.captures <= len(shapes)
    assert engine.decoder.memory.tokens.data_ptr() == pointers
    fewer = Sampling(max_new_tokens=100, stop_token_ids=STOPS, seed=4)
    assert ids(engine.generate(PROMPTS, fewer)) == ids(TransformersEngine(model, 0).generate(PROMPTS, fewer))
    assert engine.decoder.memory.tokens.data_ptr() == pointers


def test_memory_grows_for_a_larger_batch_and_is_given_back(model):
    engine = static(model, Recorder(), keeps_memory=True)
    for prompts, tokens in ((PROMPTS, 8), (PROMPTS * 3, 8), ([[5] * 90], 70), (PROMPTS, 8)):
        sampling = Sampling(max_new_tokens=tokens, seed=3)
        assert ids(engine.generate(prompts, sampling)) == ids(TransformersEngine(model, 0).generate(prompts, sampling))
    room = engine.decoder.memory.room
    assert (room.rows, room.columns, room.tokens) == (16, 192, 70)
    engine.keeps_memory = False
    engine.generate(PROMPTS, Sampling(max_new_tokens=2))
    assert engine.decoder.memory is None


def test_a_step_never_waits_for_the_device(model, monkeypatch):
    sampling = Sampling(max_new_tokens=64, stop_token_ids=STOPS, seed=3)
    waits = Waits(monkeypatch)
    with waits:
        static(model, look_every=LOOK_EVERY).generate(PROMPTS, sampling)
    assert 1 <= len(waits.seen) <= 64 / 16, waits.seen


@pytest.mark.parametrize("keys", [{"temperature": 0.7}, {"top_k": 20, "top_p": 0.8}, {"temperature": 0.0}], ids=str)
@pytest.mark.parametrize("fixed", [False, True])
def test_log_probabilities_are_those_of_the_distribution_that_was_drawn_from(model, keys, fixed):
    sampling = Sampling(max_new_tokens=20, stop_token_ids=STOPS, seed=3, **keys)
    engine = TransformersEngine(model, 0, with_logp=True, decoder=StaticDecoder(model, None) if fixed else None)
    for prompt, answer in zip(PROMPTS, engine.generate(PROMPTS, sampling), strict=True):
        assert len(answer.logp) == len(answer.ids)
        logits = model(torch.tensor([prompt + answer.ids])).logits[0, len(prompt) - 1 : -1].detach()
        if not sampling.temperature:
            assert answer.logp == [0.0] * len(answer.ids)
            continue
        logits = logits / sampling.temperature
        if sampling.top_k:
            logits = transformers.TopKLogitsWarper(sampling.top_k)(None, logits)
            logits = transformers.TopPLogitsWarper(sampling.top_p)(None, logits)
        expected = logits.log_softmax(-1).gather(-1, torch.tensor(answer.ids).unsqueeze(-1)).squeeze(-1)
        torch.testing.assert_close(torch.tensor(answer.logp), expected, atol=1e-4, rtol=0)


def test_the_prompts_pass_alone_takes_a_growing_cache(model, monkeypatch):
    def refuse(*_):
        raise AssertionError("a step of the growing cache")

    monkeypatch.setattr(StepInputs, "forward", refuse)
    static(model).generate(PROMPTS, Sampling(max_new_tokens=4))


@pytest.mark.parametrize("name", ["OPT", "Llama"])
def test_models_whose_step_needs_the_host_are_refused_without_weights(name):
    keys = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "vocab_size": 300}
    if name == "Llama":
        keys["rope_parameters"] = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    else:
        keys |= {"word_embed_proj_dim": 32, "ffn_dim": 64}
    with torch.device("meta"):
        model = getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{name}Config")(**keys))
    with pytest.raises(ModelError, match="use cache_implementation: dynamic"):
        try_step(model)


def test_autocast_over_float32_weights_samples(model):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = static(model).generate(PROMPTS, Sampling(max_new_tokens=6, seed=3))
    assert all(answer.ids for answer in found)
