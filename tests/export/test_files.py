"""An exported folder computes what the run computes, in plain transformers and peft."""

import json
import shutil
import warnings

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from alignment.config.schema import ModelKeys
from alignment.errors import ModelError
from alignment.export.command import Wanted, export
from alignment.policy.base import load_causal_lm, load_sequence_classifier
from alignment.policy.policies import Policy, hold
from alignment.rollout.engine import Sampling
from alignment.rollout.transformers_engine import TransformersEngine
from tests.models import save_tiny_encoder, save_tiny_model
from tests.policy.test_merge import trained_adapter
from tests.tuned import IDS, logits, save_base, trained, with_adapter

PROMPT = [{"role": "user", "content": "tell me a story"}]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("models") / "base")


def made(base, name, folder, **keys):
    """Save an adapter as if it had trained; return the logits of its model."""
    model = trained(with_adapter(base, name, **keys))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return logits(model)


def written(run, out, **wanted):
    said = []
    export(Wanted(run, out, **wanted), said.append)
    return said


def on_base(base, folder):
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(folder))


@pytest.mark.parametrize("what", ["adapter", "whole"])
def test_plain_transformers_answers_as_the_run_with_its_stop_tokens(what, base, tmp_path):
    run = trained_adapter(base, tmp_path / "run") if what == "adapter" else shutil.copytree(base, tmp_path / "run")
    (run / "recipe.yaml").write_text(yaml.safe_dump({"eos_token": "<|pad|>"}))
    written(run, tmp_path / "out")
    policy = Policy.find(str(run))
    [held] = hold([policy])
    [ours] = TransformersEngine(held.model, 0).generate(
        [policy.template.prompt_ids(PROMPT)],
        Sampling(40, temperature=0, stop_token_ids=policy.template.stop_token_ids),
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    inputs = tokenizer.apply_chat_template(PROMPT, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with warnings.catch_warnings(action="ignore"):
        theirs = model.generate(**inputs, max_new_tokens=40, do_sample=False)
    assert theirs[0, inputs["input_ids"].shape[1] :].tolist() == ours.ids
    assert model.generation_config.eos_token_id == policy.template.stop_token_ids == [1, 0]
    with torch.no_grad():
        assert torch.allclose(model(IDS).logits, held.model(input_ids=IDS).logits, atol=1e-4)
    if what == "whole":
        assert (tmp_path / "out/model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert Policy.find(str(tmp_path / "out")).template.stop_token_ids == [1, 0]


def test_a_reward_model_scores_as_before(base, tmp_path):
    run = trained_adapter(base, tmp_path / "run", load=load_sequence_classifier)
    written(run, tmp_path / "out")
    keys = ModelKeys(model_name_or_path=str(run))
    expected = logits(load_sequence_classifier(keys, trainable=False, pad_token_id=0))
    found = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", pad_token_id=0)
    assert torch.allclose(logits(found), expected, atol=1e-4)
    written(tmp_path / "out", tmp_path / "again")  # a whole reward model
    with pytest.raises(ModelError, match="servers take adapters of these alone"):
        written(run, tmp_path / "adapter", as_adapter=True)


def test_a_model_of_another_task_is_copied(tmp_path):
    save_tiny_encoder(tmp_path / "bert")
    written(tmp_path / "bert", tmp_path / "out")
    ids = torch.tensor([[5, 6, 7]])
    before, after = (AutoModelForMaskedLM.from_pretrained(tmp_path / name) for name in ("bert", "out"))
    assert torch.equal(before.eval()(ids).logits, after.eval()(ids).logits)
    assert "fill-mask" in (tmp_path / "out/README.md").read_text()


def test_a_plain_adapter_keeps_its_bytes(base, tmp_path):
    expected = made(base, "lora", tmp_path / "run")
    written(tmp_path / "run", tmp_path / "out", as_adapter=True)
    assert (tmp_path / "out/adapter_model.safetensors").read_bytes() == (
        tmp_path / "run/adapter_model.safetensors"
    ).read_bytes()
    assert torch.allclose(logits(on_base(base, tmp_path / "out")), expected, atol=1e-5)
    assert json.loads((tmp_path / "out/generation_config.json").read_text())["eos_token_id"] == [1]


CONVERTED = {  # method, its keys, the rank that is found
    "rslora": ("lora", {"use_rslora": True, "lora_r": 8}, 8),
    "patterns": ("lora", {"peft_config": {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"v_proj": 7}}}, 16),
    "loha": ("loha", {"peft_config": {"r": 3}}, 9),
    "hra": ("hra", {"peft_config": {"r": 4}}, 4),
    "vera": ("vera", {"peft_config": {"r": 6}}, 6),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_other_adapters_are_converted_where_that_is_exact(name, base, tmp_path):
    method, keys, rank = CONVERTED[name]
    expected = made(base, method, tmp_path / "run", **keys)
    [line] = written(tmp_path / "run", tmp_path / "out", as_adapter=True)
    assert f"converted to plain LoRA of rank {rank}" in line
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", rank, rank)
    assert not any(
        config[key] for key in ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "modules_to_save")
    )
    weights = load_file(tmp_path / "out/adapter_model.safetensors")
    assert {name.rpartition(".lora_")[2] for name in weights} == {"A.weight", "B.weight"}
    assert {tensor.shape[0 if "lora_A" in name else 1] for name, tensor in weights.items()} == {rank}
    assert torch.allclose(logits(on_base(base, tmp_path / "out")), expected, atol=1e-3)


REFUSED = {
    "dora": ({}, "which is no LoRA"),
    "oft": ({}, "which is no LoRA"),
    "ia3": ({}, "which is no LoRA"),
    "ln_tuning": ({}, "which is no weight of a linear layer"),
    "lora": ({"lora_modules_to_save": ["lm_head"]}, "has modules_to_save"),
    "bottleneck": ({}, "cannot be added to a base's weights"),
    "prompt_tuning": ({"peft_config": {"num_virtual_tokens": 4}}, "cannot be added to a base's weights"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_more_than_plain_lora_is_refused_as_an_adapter(name, base, tmp_path):
    keys, words = REFUSED[name]
    made(base, name, tmp_path / "run", **keys)
    with pytest.raises(ModelError, match=words) as caught:
        written(tmp_path / "run", tmp_path / "out", as_adapter=True)
    assert caught.value.exit_code == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run"]
    if "cannot be added" not in words:
        assert "leave --adapter out" in str(caught.value)
        written(tmp_path / "run", tmp_path / "out")


def test_a_conversion_that_computes_something_else_is_not_written(base, tmp_path, monkeypatch):
    from alignment.policy import plain_lora

    made(base, "lora", tmp_path / "run", use_rslora=True)
    monkeypatch.setattr(plain_lora, "scale_of", lambda config, module, rank: 1.0)
    with pytest.raises(ModelError, match="the converted adapter differs from"):
        written(tmp_path / "run", tmp_path / "out", as_adapter=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("bits", "told"),
    [(4, "4 bits (nf4); serve it on the same"), (8, "8 bits (int8) whose activations are not rounded")],
)
def test_an_adapter_on_a_quantised_base_names_it(tmp_path, bits, told):
    held = {f"load_in_{bits}bit": True}
    save_tiny_model(tmp_path / "base", hidden_size=64)
    run = trained_adapter(tmp_path / "base", tmp_path / "run", **held)
    written(run, tmp_path / "out", as_adapter=True)
    assert f"trained on a base in {told}" in (tmp_path / "out/README.md").read_text()
    written(run, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert not hasattr(merged.config, "quantization_config")
    expected = load_causal_lm(ModelKeys(model_name_or_path=str(run), **held), trainable=False)
    assert torch.allclose(logits(merged), logits(expected), atol=1e-3)


def test_damaged_weights_are_refused(base, tmp_path):
    run = trained_adapter(base, tmp_path / "run")
    weights = load_file(run / "adapter_model.safetensors")
    weights[next(iter(weights))].fill_(float("nan"))
    save_file(weights, run / "adapter_model.safetensors", metadata={"format": "pt"})
    for as_adapter in (True, False):
        with pytest.raises(ModelError):
            written(run, tmp_path / "out", as_adapter=as_adapter)
    assert not (tmp_path / "out").exists()
