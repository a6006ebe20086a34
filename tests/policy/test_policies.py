"""A run's folder becomes a policy that answers as it was trained; policies on one base share it."""

import json

import pytest
import torch
import yaml

from alignment.config.schema import ModelKeys, ProxyEntry
from alignment.errors import ModelError
from alignment.policy import policies
from alignment.policy.base import load_causal_lm, load_sequence_classifier
from alignment.policy.policies import Policy, hold
from tests.models import save_tiny_model
from tests.policy.test_merge import trained_adapter

IDS = torch.tensor([[2, 40, 41, 42]])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    base, other = save_tiny_model(place / "base"), save_tiny_model(place / "other", seed=3, chat_template=None)
    for name, method in (("lora", "lora"), ("dora", "dora")):
        trained_adapter(base, place / name, peft_method=method)
    trained_adapter(base, place / "reward", load=load_sequence_classifier)
    return {"base": str(base), "other": str(other)} | {name: str(place / name) for name in ("lora", "dora", "reward")}


def logits(held, place):
    if held.adapters is not None:
        held.adapters.activate(held.names[place])
    with torch.no_grad():
        return held.model(input_ids=IDS).logits


def test_bits_that_a_user_names_replace_those_of_training(wide_model_dir, tmp_path):
    run = trained_adapter(wide_model_dir, tmp_path / "run", load_in_8bit=True)
    assert Policy.find(str(run)).keys.bits == 8
    assert Policy.find(str(run), {"load_in_4bit": True}).keys.bits == 4
    assert Policy.find(str(run), {"load_in_8bit": False}).keys.bits is None
    with pytest.raises(ModelError, match="load_in_4bit and load_in_8bit cannot both be true"):
        Policy.find(str(run), {"load_in_4bit": True, "load_in_8bit": True})
    (held,) = hold([Policy.find(str(run))])
    expected = load_causal_lm(ModelKeys(model_name_or_path=str(run), load_in_8bit=True), trainable=False)(IDS).logits
    assert torch.equal(logits(held, 0), expected)


def test_adapters_of_one_base_share_it_and_compute_what_each_computes_alone(runs, monkeypatch):
    loaded = []

    def counted(keys, **options):
        loaded.append(keys.model_name_or_path)
        return load_causal_lm(keys, **options)

    monkeypatch.setattr(policies, "load_causal_lm", counted)
    found = hold([Policy.find(runs[name]) for name in ("lora", "other", "base", "dora")])
    assert loaded == [runs["base"], runs["other"]]
    assert [[policy.path for policy in held.policies] for held in found] == [
        [runs["lora"], runs["base"], runs["dora"]],
        [runs["other"]],
    ]
    assert [held.context for held in found] == [256, 256]
    for held in found:
        for place, policy in enumerate(held.policies):
            alone = load_causal_lm(ModelKeys(model_name_or_path=policy.path), trainable=False)
            with torch.no_grad():
                wanted = alone(input_ids=IDS).logits
            assert torch.allclose(logits(held, place), wanted, atol=1e-5), policy.path


def test_a_proxy_has_a_base_of_its_own(runs):
    plain, changed = (
        Policy.find(runs["base"], proxy=proxy) for proxy in (None, ProxyEntry(tuned=runs["lora"], untuned=runs["base"]))
    )
    first, second = hold([plain, changed])
    tuned = logits(hold([Policy.find(runs["lora"])])[0], 0)
    assert torch.allclose(logits(second, 0), tuned, atol=1e-5)
    assert not torch.allclose(logits(first, 0), tuned, atol=1e-2)


def test_a_policy_has_the_template_and_the_stops_of_its_run(runs, tmp_path):
    assert Policy.find(runs["lora"]).template.stop_token_ids == [1]
    assert Policy.find(runs["base"]).chats
    assert not Policy.find(runs["other"]).chats
    run = trained_adapter(runs["base"], tmp_path / "run")
    (run / "recipe.yaml").write_text(yaml.safe_dump({"eos_token": "<|pad|>"}))
    assert Policy.find(str(run)).template.stop_token_ids == [1, 0]
    assert Policy.find(str(run), {"eos_token": "<|im_start|>"}).template.stop_token_ids == [1, 2]


def test_a_run_knows_whether_it_was_trained_on_text(runs, tmp_path):
    run = trained_adapter(runs["base"], tmp_path / "run")
    assert not Policy.find(str(run)).trained_on_text
    for manifest, expected in (
        ({"prompt_kind": "text"}, True),
        ({"prompt_kind": "messages"}, False),
        ({"stage": "pretrain"}, True),
    ):
        (run / "manifest.json").write_text(json.dumps(manifest))
        assert Policy.find(str(run)).trained_on_text is expected


def test_what_is_no_policy_is_refused_before_a_model_loads(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(policies, "load_causal_lm", None)
    with pytest.raises(ModelError, match="does not exist"):
        Policy.find(str(tmp_path / "none"))
    with pytest.raises(ModelError, match="is a reward model's adapter"):
        Policy.find(runs["reward"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="neither a model nor an adapter"):
        Policy.find(str(tmp_path / "empty"))
