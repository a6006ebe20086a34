"""What a client gets: texts, streams, log-probabilities, stops, in OpenAI's forms, read by OpenAI's client."""

import re

import openai
import pytest
import torch

from alignment.config.schema import ModelKeys
from alignment.data.template import Template
from alignment.policy.base import load_causal_lm
from alignment.policy.tokenizer import load_tokenizer
from alignment.rollout.engine import Sampling
from alignment.rollout.transformers_engine import TransformersEngine

WORDS = "Please tell me a story"


@pytest.fixture(scope="module")
def alone(base, folders):
    """Samples with a model as it is loaded alone."""
    loaded = {}

    def sample(name, prompt, **sampling):
        if name not in loaded:
            keys = ModelKeys(model_name_or_path=str(folders.get(name, base)))
            loaded[name] = load_causal_lm(keys, trainable=False).eval(), Template(load_tokenizer(keys))
        model, template = loaded[name]
        ids = template.prompt_ids(prompt)
        stops = tuple(template.stop_token_ids)
        answer = TransformersEngine(model, 0).generate([ids], Sampling(stop_token_ids=stops, **sampling))[0]
        return template.answer_text(ids, answer.words), answer, model, ids

    return sample


def test_the_models_are_listed(running, base, folders):
    found = {model.id: model for model in running.client.models.list().data}
    assert list(found) == ["base", *folders]
    assert found["one"].root == str(folders["one"])
    assert found["one"].parent == str(base)
    assert found["base"].max_model_len == 256
    assert running.client.models.retrieve("two").id == "two"


@pytest.mark.parametrize("name", ["base", "one", "two", "ia3"])
def test_an_answer_is_the_model_s_own(running, alone, name):
    prompt = [{"role": "user", "content": WORDS}]
    text, answer, *_ = alone(name, prompt, max_new_tokens=12, seed=5, temperature=0.8, top_p=0.9)
    reply = running.client.chat.completions.create(
        model=name, messages=prompt, max_completion_tokens=12, seed=5, temperature=0.8, top_p=0.9
    )
    assert reply.choices[0].message.content == text
    assert reply.choices[0].message.role == "assistant"
    assert reply.choices[0].finish_reason == ("stop" if answer.stopped else "length")
    assert reply.usage.completion_tokens == len(answer.ids)
    assert reply.usage.prompt_tokens + len(answer.ids) == reply.usage.total_tokens


def test_adapters_write_different_texts(running):
    texts = {running.chat(WORDS, model=name, max_tokens=12, temperature=0).message.content
             for name in ("base", "one", "two", "ia3")}  # fmt: skip
    assert len(texts) == 4


def test_an_answer_ends_with_the_stop_token_of_training(running):
    ends = [running.chat(WORDS, model="base", seed=seed, logit_bias={"1": 8}) for seed in range(8)]
    assert {end.finish_reason for end in ends} == {"stop"}
    assert any(end.message.content for end in ends)
    assert not any("<|im_end|>" in end.message.content for end in ends)


def test_every_choice_draws_numbers_of_its_own(running, alone):
    reply = running.client.completions.create(model="one", prompt=WORDS, n=3, seed=4, max_tokens=8)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    expected = [alone("one", WORDS, max_new_tokens=8, seed=4, first_row=row)[0] for row in range(3)]
    assert [choice.text for choice in reply.choices] == expected
    assert reply.usage.prompt_tokens == len(alone("one", WORDS, max_new_tokens=1)[3])


def test_without_a_seed_answers_differ(running):
    assert len({running.text(model="base", prompt=WORDS, max_tokens=8) for _ in range(4)}) > 1


def streamed(running, **asked):
    """Return the chunks of a stream."""
    return list(running.client.chat.completions.create(stream=True, **asked))


@pytest.mark.parametrize("stop", [None, "e", [" the", "qu", "zz"]])
def test_a_stream_is_the_answer_in_parts(running, stop):
    asked = {"model": "two", "messages": [{"role": "user", "content": WORDS}], "max_tokens": 24, "seed": 9, "n": 2}
    asked |= {"stop": stop, "logprobs": True, "top_logprobs": 2}
    whole = running.client.chat.completions.create(**asked)
    chunks = streamed(running, **asked, stream_options={"include_usage": True})
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    for choice in whole.choices:
        parts = [part for chunk in chunks for part in chunk.choices if part.index == choice.index]
        assert "".join(part.delta.content or "" for part in parts) == choice.message.content
        assert [part.finish_reason for part in parts if part.finish_reason] == [choice.finish_reason]
        tokens = [token for part in parts if part.logprobs for token in part.logprobs.content]
        assert [token.token for token in tokens] == [token.token for token in choice.logprobs.content]
    assert len(chunks) > 8


def test_the_text_ends_before_a_stop_across_tokens(running):
    asked = {"model": "base", "prompt": WORDS, "seed": 3, "max_tokens": 30}
    whole = running.client.completions.create(**asked).choices[0]
    assert whole.finish_reason == "length"
    for length in (1, 2, 5):
        stop = whole.text[9 : 9 + length]
        end = whole.text.index(stop)
        reply = running.client.completions.create(**asked, stop=[stop, "never"], logprobs=0)
        assert reply.choices[0].text == whole.text[:end]
        assert reply.choices[0].finish_reason == "stop"
        assert all(start < end for start in reply.choices[0].logprobs.text_offset)
        parts = [chunk.choices[0] for chunk in running.client.completions.create(**asked, stop=stop, stream=True)]
        assert "".join(part.text for part in parts) == whole.text[:end]
        assert reply.usage.completion_tokens < 30


def joined(tokens):
    """Return the text of tokens, some of which may be parts of characters."""
    parts = [re.sub(r"bytes:|\\x", "", one) if one.startswith("bytes:") else one.encode().hex() for one in tokens]
    return bytes.fromhex("".join(parts)).decode(errors="replace")


def test_log_probabilities_are_the_model_s(running, alone):
    _, answer, model, ids = alone("one", WORDS, max_new_tokens=10, seed=1, temperature=0.5)
    reply = running.client.completions.create(
        model="one", prompt=WORDS, max_tokens=10, seed=1, temperature=0.5, logprobs=3
    )
    with torch.no_grad():
        whole = torch.tensor([[*ids, *answer.ids]])
        logps = model(whole).logits[0, len(ids) - 1 : -1].log_softmax(-1)  # at temperature 1, as OpenAI's
    found = reply.choices[0].logprobs
    expected = [logps[place, token].item() for place, token in enumerate(answer.ids)]
    assert found.token_logprobs == pytest.approx(expected, abs=1e-4)
    best = logps.topk(3).values.tolist()
    assert [max(top.values()) for top in found.top_logprobs] == pytest.approx([row[0] for row in best], abs=1e-4)
    assert joined(found.tokens) == reply.choices[0].text


def test_a_prompt_is_echoed_with_its_log_probabilities(running, alone):
    *_, model, ids = alone("two", WORDS, max_new_tokens=1)
    reply = running.client.completions.create(
        model="two", prompt=WORDS, max_tokens=0, echo=True, logprobs=1, temperature=0
    ).choices[0]
    with torch.no_grad():
        logps = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = [logps[place, token].item() for place, token in enumerate(ids[1:])]
    assert reply.text == WORDS
    assert reply.logprobs.token_logprobs[0] is None
    assert reply.logprobs.token_logprobs[1:] == pytest.approx(expected, abs=1e-4)
    assert reply.logprobs.text_offset == [len("".join(reply.logprobs.tokens[:place])) for place in range(len(ids))]
    more = running.client.completions.create(model="two", prompt=WORDS, max_tokens=4, echo=True, logprobs=1, seed=1)
    assert joined(more.choices[0].logprobs.tokens) == more.choices[0].text
    assert more.choices[0].logprobs.text_offset[len(ids)] == len(WORDS)


def test_several_prompts_are_texts_or_token_ids(running, alone):
    expected = [alone("base", prompt, max_new_tokens=6, temperature=0)[0] for prompt in (WORDS, "the quick")]
    ids = [alone("base", prompt, max_new_tokens=1)[3] for prompt in (WORDS, "the quick")]
    for prompts in ([WORDS, "the quick"], ids):
        reply = running.client.completions.create(model="base", prompt=prompts, max_tokens=6, temperature=0)
        assert [choice.text for choice in reply.choices] == expected
    one = running.client.completions.create(model="base", prompt=ids[0], max_tokens=6, temperature=0)
    assert one.choices[0].text == expected[0]


def test_a_token_of_part_of_a_character_has_its_bytes(running):
    prompt = "🙂"
    reply = running.client.completions.create(model="base", prompt=prompt, max_tokens=0, echo=True, logprobs=0)
    assert reply.choices[0].logprobs.tokens == [f"bytes:\\x{byte:02x}" for byte in prompt.encode()]


def test_bias_and_penalties_change_the_logits(running):
    asked = {"model": "base", "prompt": WORDS, "max_tokens": 20, "temperature": 0}
    tokens = running.client.completions.create(**asked, logit_bias={"40": 100}, logprobs=0).choices[0].logprobs.tokens
    assert len(set(tokens)) == 1
    penalised = running.client.completions.create(
        **asked, logit_bias={"40": 10, "50": 10, "60": 10}, frequency_penalty=2, logprobs=0
    )
    assert len(set(penalised.choices[0].logprobs.tokens)) >= 3
    present = running.client.completions.create(**asked, presence_penalty=2, logprobs=0).choices[0].logprobs.tokens
    plain = running.client.completions.create(**asked, logprobs=0).choices[0].logprobs.tokens
    assert present != plain


def test_a_whole_context_is_written(running):
    reply = running.client.completions.create(
        model="base", prompt=[[40] * 200], max_tokens=56, seed=0, logit_bias={"1": -100}
    )
    assert reply.usage.total_tokens == 256
    with pytest.raises(openai.BadRequestError) as refused:
        running.client.completions.create(model="base", prompt=[[40] * 200], max_tokens=57)
    assert refused.value.code == "context_length_exceeded"
    assert refused.value.param == "prompt"
    free = running.client.chat.completions.create(
        model="base", messages=[{"role": "user", "content": WORDS}], seed=0, logit_bias={"1": -100}
    )
    assert free.usage.total_tokens == 256
    assert free.choices[0].finish_reason == "length"


@pytest.mark.parametrize("near_zero", [{"temperature": 1e-40}, {"top_p": 1e-300}])
def test_settings_near_zero_take_the_likeliest_token(running, near_zero):
    asked = {"model": "base", "prompt": WORDS, "max_tokens": 8}
    assert running.text(**asked, seed=1, **near_zero) == running.text(**asked, temperature=0)
