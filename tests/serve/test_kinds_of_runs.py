"""What may be served: proxies, 4 bits, soft prompts, models without a chat template, several bases."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import AutoModelForCausalLM, DogeConfig, OpenAIGPTConfig

from alignment.config.schema import ProxyEntry
from alignment.errors import ModelError
from alignment.policy.policies import Policy, hold
from alignment.rollout.engine import Sampling
from alignment.rollout.transformers_engine import TransformersEngine
from tests.models import make_tokenizer, save_tiny_model
from tests.policy.test_many_adapters import saved
from tests.serve.running import Running

WORDS = "Please tell me a story"


def alone(path, prompt, *, keys=None, proxy=None, **sampling):
    """Return the text that a run writes by itself."""
    policy = Policy.find(str(path), keys, proxy=proxy)
    template, model = policy.template, hold([policy])[0].model
    ids = template.prompt_ids(prompt)
    stops = tuple(template.stop_token_ids)
    answer = TransformersEngine(model, 0).generate([ids], Sampling(stop_token_ids=stops, **sampling))[0]
    return template.answer_text(ids, answer.words)


def served(running, name):
    return running.text(model=name, prompt=WORDS, max_tokens=10, seed=2)


def test_a_proxy(base, tmp_path):
    tuned, untuned = (save_tiny_model(tmp_path / str(seed), seed=seed, initializer_range=0.3) for seed in (1, 2))
    proxy = ProxyEntry(tuned=str(tuned), untuned=str(untuned), alpha=0.5)
    expected = alone(base, WORDS, proxy=proxy, max_new_tokens=10, seed=2)
    with Running({"big": base}, proxy=proxy) as running:
        assert served(running, "big") == expected
    assert alone(base, WORDS, max_new_tokens=10, seed=2) != expected


@pytest.mark.parametrize("keys", [{"load_in_4bit": True}, {"load_in_8bit": True}], ids=["4", "8"])
def test_few_bits_with_adapters(wide_model_dir, tmp_path, keys):
    adapter = saved(wide_model_dir, tmp_path / "adapter", "LORA", 1, r=2)
    with Running({"base": wide_model_dir, "tuned": adapter}, keys=keys) as running:
        assert len(running.models.engines) == 1
        for name, path in (("base", wide_model_dir), ("tuned", adapter)):
            assert served(running, name) == alone(path, WORDS, keys=keys, max_new_tokens=10, seed=2)


def test_types_that_cannot_share_a_base_are_held_alone(base, folders, tmp_path):
    prompt = saved(base, tmp_path / "prompt", "PROMPT_TUNING", 1, num_virtual_tokens=4)
    with Running({"prompt": prompt, "one": folders["one"]}) as running:
        assert len(running.models.engines) == 2
        assert {model.id: model.max_model_len for model in running.client.models.list().data} == {
            "prompt": 252, "one": 256,
        }  # fmt: skip
        assert served(running, "prompt") == alone(prompt, WORDS, max_new_tokens=10, seed=2)
        reply = running.client.completions.create(model="prompt", prompt=WORDS, max_tokens=10, seed=2, n=3)
        expected = [alone(prompt, WORDS, max_new_tokens=10, seed=2, first_row=row) for row in range(3)]
        assert [choice.text for choice in reply.choices] == expected
    with pytest.raises(ModelError, match=r"--max_length 253 is more than the context of .*prompt, 252 tokens"):
        Running({"prompt": prompt}, length=253)


def test_several_bases_answer_side_by_side(base, tmp_path):
    other = save_tiny_model(tmp_path / "other", seed=4, chat_template=None, initializer_range=0.3)
    with Running({"base": base, "other": other}) as running:
        for name, path in (("base", base), ("other", other)):
            assert served(running, name) == alone(path, WORDS, max_new_tokens=10, seed=2)
        status, body = running.post(
            "/chat/completions", {"model": "other", "messages": [{"role": "user", "content": "a"}]}
        )
    assert (status, body["error"]["param"]) == (400, "model")
    assert "has no chat template; use /v1/completions" in body["error"]["message"]


@pytest.mark.parametrize("name", ["bloom", "mistral", "qwen3"])
def test_other_architectures(shared, name):
    path = shared / "models/kinds" / name
    with Running({name: path}) as running:
        assert served(running, name) == alone(path, WORDS, max_new_tokens=10, seed=2)


LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 16, "factor": 16.0,
    "short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 6.0, 9.0],
}  # fmt: skip


def test_longrope_has_the_frequencies_of_each_answer_beside_longer_ones_and_of_all_of_it(tmp_path):
    path = save_tiny_model(tmp_path / "base", initializer_range=0.3, rope_parameters=LONGROPE)
    model = hold([Policy.find(str(path))])[0].model
    requests = [
        {"model": "base", "prompt": [5 + number] * size, "max_tokens": 20, "temperature": 0, "logit_bias": {"1": -100}}
        for number, size in enumerate((1, 2, 9, 15, 16, 17, 40))
    ]
    with Running({"base": path}) as running, ThreadPoolExecutor(len(requests)) as pool:
        found = list(pool.map(lambda asked: running.client.completions.create(**asked, logprobs=0), requests))
    for asked, reply in zip(requests, found, strict=True):
        ids, expected = list(asked["prompt"]), []
        for _ in range(asked["max_tokens"]):  # without a cache
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1].detach()
            logps = logits.log_softmax(-1)
            logits[1] -= 100
            ids.append(int(logits.argmax()))
            expected.append(float(logps[ids[-1]]))
        assert reply.choices[0].logprobs.token_logprobs == pytest.approx(expected, abs=1e-4)


def test_attention_whose_mask_differs_by_head(tmp_path):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 128}
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = DogeConfig(
        vocab_size=len(tokenizer), num_attention_heads=4, num_key_value_heads=2, eos_token_id=1, pad_token_id=0, **sizes
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "doge")
    tokenizer.save_pretrained(tmp_path / "doge")
    with Running({"doge": tmp_path / "doge"}) as running:
        assert served(running, "doge") == alone(tmp_path / "doge", WORDS, max_new_tokens=10, seed=2)


def test_a_model_without_a_cache_is_refused_before_the_server_listens(tmp_path):
    tokenizer = make_tokenizer()
    config = OpenAIGPTConfig(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=64)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "old")
    tokenizer.save_pretrained(tmp_path / "old")
    words = "old cannot be served: OpenAIGPTLMHeadModel fails to read a token into a cache"
    with pytest.raises(ModelError, match=words), Running({"old": tmp_path / "old"}, cache_tokens=100):
        pass


def test_a_base_is_held_once(base, folders):
    with Running({"base": base, **folders}) as running:
        (engine,) = running.models.engines
        held = sum(parameter.numel() for parameter in engine.model.parameters())
    plain = sum(parameter.numel() for parameter in hold([Policy.find(str(base))])[0].model.parameters())
    assert held == pytest.approx(plain, rel=0.02)
