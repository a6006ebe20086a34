"""Proxy-tuning: equal to a naive loop, for a 4-bit base too, and refused where tokens or training would be wrong."""

import pytest
import torch

from alignment.config import load_recipe
from alignment.config.schema import ModelKeys, ProxyEntry
from alignment.errors import LineageError, RecipeError
from alignment.evaluate.metrics import token_logps
from alignment.policy.base import load_causal_lm
from alignment.policy.proxy import proxy_identity, proxy_tuned
from alignment.rollout.engine import Sampling
from alignment.rollout.transformers_engine import TransformersEngine
from tests.models import make_model, make_tokenizer, save_tiny_model
from tests.policy.test_merge import trained_adapter

PROMPTS = [[2, 40, 41], [2, 50], [2, 60, 61, 62, 63], [2, 70]]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """A base, and a smaller pair whose tuned model is an adapter."""
    place = tmp_path_factory.mktemp("proxy")
    save_tiny_model(place / "base", hidden_size=64, layers=3, initializer_range=0.2)
    save_tiny_model(place / "untuned", seed=1, initializer_range=0.2, max_position_embeddings=128)
    trained_adapter(place / "untuned", place / "tuned")
    return place


def keys(path, **changes):
    return ModelKeys(model_name_or_path=str(path), **changes)


def entry(paths, alpha=1.0, tuned="tuned", untuned="untuned"):
    return ProxyEntry(tuned=str(paths / tuned), untuned=str(paths / untuned), alpha=alpha)


def model(paths, proxy, **changes):
    held = keys(paths / "base", **changes)
    return proxy_tuned(load_causal_lm(held, trainable=False), held, proxy)


def naive(paths, prompt, alpha, count, **changes):
    """Greedy decoding without caches: three whole forward passes for each token."""
    base, tuned, untuned = (
        load_causal_lm(keys(paths / name, **(changes if name == "base" else {})), trainable=False).eval()
        for name in ("base", "tuned", "untuned")
    )
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            a, b, c = (each(input_ids=torch.tensor([ids])).logits[0, -1].float() for each in (base, tuned, untuned))
            ids.append(int((a + alpha * (b - c)).argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("changes", [{}, {"load_in_4bit": True}, {"load_in_8bit": True}], ids=["float32", "nf4", "8"])
@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_greedy_decoding_equals_a_naive_loop(paths, alpha, changes):
    engine = TransformersEngine(model(paths, entry(paths, alpha), **changes), 0)
    found = engine.generate(PROMPTS, Sampling(max_new_tokens=10, temperature=0))
    for prompt, answer in zip(PROMPTS, found, strict=True):
        assert answer.ids == naive(paths, prompt, alpha, 10, **changes)
    plain = TransformersEngine(load_causal_lm(keys(paths / "base", **changes), trainable=False), 0)
    assert [each.ids for each in plain.generate(PROMPTS, Sampling(max_new_tokens=10, temperature=0))] != [
        each.ids for each in found
    ]


def test_a_pair_of_equals_or_alpha_0_gives_the_base(paths):
    sampling = Sampling(max_new_tokens=12, seed=3, stop_token_ids=range(100, 130))
    base = TransformersEngine(load_causal_lm(keys(paths / "base"), trainable=False), 0)
    wanted = base.generate(PROMPTS, sampling)
    for proxy in (entry(paths, tuned="untuned"), entry(paths, alpha=0.0)):
        assert TransformersEngine(model(paths, proxy), 0, batch_size=2).generate(PROMPTS, sampling) == wanted


def test_log_probabilities_are_of_the_combined_logits(paths):
    proxy = model(paths, entry(paths, 0.7))
    answers = [[10, 11, 12], [20], [30, 31], [40, 41, 42, 43]]
    found = token_logps(proxy, PROMPTS, answers, temperature=1.0, batch_size=4)
    parts = [load_causal_lm(keys(paths / name), trainable=False).eval() for name in ("base", "tuned", "untuned")]
    for prompt, answer, logps in zip(PROMPTS, answers, found, strict=True):
        with torch.no_grad():
            a, b, c = (each(input_ids=torch.tensor([prompt + answer])).logits[0].double() for each in parts)
        wanted = (a + 0.7 * (b - c)).log_softmax(-1)[len(prompt) - 1 : -1].gather(-1, torch.tensor(answer)[:, None])
        assert torch.allclose(logps, wanted.squeeze(-1), atol=1e-5)


def test_padded_output_layers_and_contexts_of_their_own(paths, tmp_path):
    tokenizer = make_tokenizer()
    make_model(tokenizer, seed=4, vocab_size=len(tokenizer) + 20).save_pretrained(tmp_path / "wide")
    tokenizer.save_pretrained(tmp_path / "wide")
    wide = ProxyEntry(tuned=str(tmp_path / "wide"), untuned=str(tmp_path / "wide"))
    proxy = model(paths, wide)
    with torch.no_grad():
        found = proxy(input_ids=torch.tensor([PROMPTS[0]])).logits
        base = load_causal_lm(keys(paths / "base"), trainable=False)(input_ids=torch.tensor([PROMPTS[0]])).logits
    assert torch.allclose(found, base, atol=1e-5)
    assert model(paths, entry(paths)).config.max_position_embeddings == 128  # the pair's


def test_another_tokenizer_is_refused_before_the_pair_loads(paths, tmp_path, monkeypatch):
    tokenizer = make_tokenizer(vocab_size=280)
    make_model(tokenizer).save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    monkeypatch.setattr("alignment.policy.proxy.load_causal_lm", None)
    proxy = ProxyEntry(tuned=str(paths / "tuned"), untuned=str(tmp_path / "other"))
    with pytest.raises(LineageError, match=r"proxy.untuned .*other has another tokenizer than .*base \(\w{12} against"):
        proxy_tuned(None, keys(paths / "base"), proxy)


def test_a_run_records_the_pair(paths):
    found = proxy_identity(keys(paths / "base"), entry(paths, 0.5))
    assert (len(found["tuned"]), len(found["untuned"]), found["alpha"]) == (2, 1, 0.5)


@pytest.mark.parametrize("stage", ["sft", "dpo", "reward", "ppo"])
def test_training_stages_have_no_proxy(stage, tmp_path):
    """What a proxy samples is not the policy's: PPO would learn from probabilities that are not its own."""
    (tmp_path / "x.yaml").write_text(f"stage: {stage}\nproxy: {{tuned: x, untuned: y}}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(stage, ["--config", str(tmp_path / "x.yaml")])
    assert any(f"proxy: no key of stage {stage}" in fault for fault in caught.value.faults)
