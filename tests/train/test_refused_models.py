"""A model or adapter that a stage cannot train: one line, exit code 2, and no run's folder."""

import importlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from alignment.errors import AlignmentError
from alignment.policy.base import load_sequence_classifier
from tests.models import save_tiny_model
from tests.policy.test_merge import trained_adapter

STAGES = ("sft", "reward", "dpo", "ppo")
MORE = {"ppo": {"total_episodes": 64, "reward_model_path": "unused"}}


def cut(adapter, tmp_path):
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    return {}


def of_a_reward_model(adapter, tmp_path):
    base = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    return {"model_name_or_path": str(trained_adapter(base, tmp_path / "reward", load=load_sequence_classifier))}


def of_a_missing_base(adapter, tmp_path):
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": str(tmp_path / "absent")}))
    return {}


def of_a_wider_base(adapter, tmp_path):
    file = adapter / "adapter_config.json"
    wide = str(save_tiny_model(tmp_path / "wide", hidden_size=64))
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": wide}))
    return {}


CASES = {
    "of a wider base": (of_a_wider_base, r"made for a model\S+ with [0-9]+ (in|out)puts, and the base's weight is"),
    "cut off": (cut, r"adapter_model\.safetensors"),
    "of a reward model": (of_a_reward_model, "is a reward model's adapter"),
    "another rank": (lambda *_: {"lora_r": 7}, "lora_r is 4 in the adapter, 7 in the recipe"),
    "another type": (lambda *_: {"peft_method": "ia3"}, "peft_method is lora in the adapter, ia3 in the recipe"),
    "all weights": (lambda *_: {"peft_method": "full"}, "is an adapter, but peft_method is full; merge it first"),
    "a missing base": (of_a_missing_base, "absent, which does not exist"),
}


def require_refused(given, tmp_path, monkeypatch, message):
    """Run a recipe; require one line, exit code 2, no loaded model and no run's folder."""
    given = {"output_dir": str(tmp_path / "run"), "use_cpu": True,
             "datasets": [{"path": str(tmp_path / "rows.jsonl")}], **given}  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(json.dumps(given))
    monkeypatch.setattr("alignment.policy.base.load_base", lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(AlignmentError, match=message) as refused:
        importlib.import_module(f"recipes.{given['stage']}").main(["--config", str(tmp_path / "recipe.yaml")])
    assert refused.value.exit_code == 2
    assert len(str(refused.value).splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.fixture
def adapter(tiny_model_dir, tmp_path):
    return trained_adapter(tiny_model_dir, tmp_path / "adapter")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_before_anything_is_written(adapter, tmp_path, monkeypatch, stage, case):
    if (stage, case) == ("reward", "of a reward model"):
        pytest.skip("a reward model goes on from one")
    change, message = CASES[case]
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c", "completion": "b"}\n')
    given = {"stage": stage, "model_name_or_path": str(adapter), **MORE.get(stage, {}), **change(adapter, tmp_path)}
    require_refused(given, tmp_path, monkeypatch, message)


def of_integers(adapter, tmp_path):
    file = adapter / "adapter_model.safetensors"
    save_file({name: tensor.to(torch.int8) for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    return {}


REWARDS = {
    "cut off": (cut, r"adapter_model\.safetensors"),
    "of integers": (of_integers, r"adapter_model\.safetensors"),
    "missing": (lambda adapter, _: shutil.rmtree(adapter), "does not exist|is no "),
    "of a policy": (None, "is the adapter of a policy, and a reward model is needed here"),
}


@pytest.mark.parametrize("stage", ["ppo", "grpo"])
@pytest.mark.parametrize("where", ["reward_model_path", "scorers", "watch_scorers"])
@pytest.mark.parametrize("case", REWARDS)
def test_a_reward_model_is_refused_before_anything_is_written(
    tiny_model_dir, tmp_path, monkeypatch, stage, where, case
):
    change, message = REWARDS[case]
    reward = trained_adapter(tiny_model_dir, tmp_path / "reward", load=load_sequence_classifier)
    if change is None:
        reward = trained_adapter(tiny_model_dir, tmp_path / "policy")
    else:
        change(reward, tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a"}\n')
    entry = [{"kind": "reward_model", "model_name_or_path": str(reward)}]
    scored = {"scorers": [{"kind": "length", "maximum": 3}]} if where == "watch_scorers" else {}
    given = {"stage": stage, "model_name_or_path": str(tiny_model_dir), "total_episodes": 64, **scored}
    given[where] = str(reward) if where == "reward_model_path" else entry
    require_refused(given, tmp_path, monkeypatch, message)
