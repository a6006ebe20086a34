"""Policies on one base: loaded once, measured as if each were alone."""

import pytest
import torch

from alignment.config.schema import DatasetEntry, EvaluateRecipe, ModelKeys
from alignment.errors import ModelError
from alignment.evaluate import policies, shared_base
from alignment.evaluate.policies import measure
from alignment.evaluate.shared_base import SharedBase
from alignment.policy.base import load_causal_lm
from tests.models import save_tiny_model
from tests.policy.test_merge import trained_adapter


@pytest.fixture(scope="module")
def paths(tiny_model_dir, tmp_path_factory):
    place = tmp_path_factory.mktemp("policies")
    save_tiny_model(place / "other", seed=3)
    trained_adapter(tiny_model_dir, place / "lora")
    trained_adapter(tiny_model_dir, place / "dora", peft_method="dora")
    trained_adapter(place / "other", place / "on_other")
    return {name: str(place / name) for name in ("lora", "dora", "other", "on_other")} | {"base": str(tiny_model_dir)}


def recipe(paths, candidates, baseline, tmp_path):
    return EvaluateRecipe(
        stage="evaluate",
        model_name_or_path=paths[baseline],
        candidates=[{"name": name, "model_name_or_path": paths[name]} for name in candidates],
        datasets=[DatasetEntry(path="x.jsonl")],
        judges=[{"kind": "rules", "function": "operator:gt"}],
        output_dir=str(tmp_path / "out"),
        max_new_tokens=6,
        per_device_eval_batch_size=3,
    )


def test_each_base_is_loaded_once_and_the_answers_are_those_of_each_alone(paths, tmp_path, monkeypatch):
    loaded = []

    def counted(keys, **options):
        loaded.append(keys.model_name_or_path)
        return load_causal_lm(keys, **options)

    monkeypatch.setattr(shared_base, "load_policy", counted)
    prompts = ["the quick brown", "a small cat", "tell me", "Thank you"]
    given = recipe(paths, ["lora", "on_other", "dora", "other"], "base", tmp_path)
    baseline, candidates = measure(given, prompts, None, lambda _: None)
    assert loaded == [paths["other"], paths["base"]]
    assert [each.name for each in candidates] == ["lora", "on_other", "dora", "other"]
    for place, policy in enumerate([*candidates, baseline]):
        alone = load_causal_lm(ModelKeys(model_name_or_path=policy.path), trainable=False)
        tokenizer = policies.load_tokenizer(ModelKeys(model_name_or_path=policy.path))
        template = policies.Template(tokenizer)
        wanted = policies._answer(given, "x", policy.path, alone, tokenizer, template, prompts, given.seed + place)
        assert policy.answer_ids == wanted.answer_ids
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(policy.logps, wanted.logps, strict=True))
        if policy is not baseline:
            base = load_causal_lm(ModelKeys(model_name_or_path=paths["base"]), trainable=False)
            logps = policies._logps(base, policy, given)
            assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(policy.ref_logps, logps, strict=True))


def test_a_type_that_cannot_share_is_loaded_alone(paths, tmp_path, monkeypatch):
    def refuse(*given):
        raise ModelError("cannot share")

    monkeypatch.setattr(shared_base.ManyAdapters, "activate", refuse)
    shared = SharedBase(recipe(paths, ["lora"], "dora", tmp_path), [paths["lora"], paths["dora"]])
    ids = torch.tensor([[2, 40, 41]])
    with torch.no_grad():
        found = shared.load(paths["lora"])(input_ids=ids).logits
        wanted = load_causal_lm(ModelKeys(model_name_or_path=paths["lora"]), trainable=False)(input_ids=ids).logits
    assert torch.equal(found, wanted)


def test_a_candidates_proxy_changes_its_answers_and_its_kl(paths, tmp_path):
    given = recipe(paths, ["base", "lora"], "base", tmp_path).model_dump(exclude_unset=True)
    pair = {"tuned": paths["lora"], "untuned": paths["base"]}
    given["candidates"][0]["proxy"] = pair  # base + (lora - base) is lora
    _, (proxy, lora) = measure(EvaluateRecipe(**given), ["the quick", "a small cat"], None, lambda _: None)
    model = load_causal_lm(ModelKeys(model_name_or_path=paths["lora"]), trainable=False)
    for policy in (proxy, lora):
        wanted = policies._logps(model, policy, EvaluateRecipe(**given))
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(policy.logps, wanted, strict=True))
        assert not all(torch.allclose(a, b, atol=1e-2) for a, b in zip(policy.logps, policy.ref_logps, strict=True))
