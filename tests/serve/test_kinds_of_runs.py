"""What may be served: proxies, 4 bits, soft prompts, models without a chat template, several bases."""

import pytest

from alignment.config.schema import ProxyEntry
from alignment.errors import ModelError
from alignment.policy.policies import Policy, hold
from alignment.rollout.engine import Sampling
from alignment.rollout.transformers_engine import TransformersEngine
from tests.models import save_tiny_model
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


def test_a_base_is_held_once(base, folders):
    with Running({"base": base, **folders}) as running:
        (engine,) = running.models.engines
        held = sum(parameter.numel() for parameter in engine.model.parameters())
    plain = sum(parameter.numel() for parameter in hold([Policy.find(str(base))])[0].model.parameters())
    assert held == pytest.approx(plain, rel=0.02)
