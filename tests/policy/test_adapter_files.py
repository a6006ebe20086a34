"""What an adapter's configuration may hold, and that its tensors are all there."""

import json
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from alignment.config.schema import AdapterKeys, ModelKeys, PPORecipe
from alignment.errors import ModelError
from alignment.policy.base import load_causal_lm, load_sequence_classifier
from alignment.policy.load_roles import load_roles
from tests.models import on_base


class Keys(ModelKeys, AdapterKeys):
    """What a recipe gives of model and adapter."""


def save(load, base, path, **keys):
    given = Keys(model_name_or_path=str(base), **{"lora_r": 2, **keys})
    torch.manual_seed(0)
    load(given, trainable=True, peft=given).save_pretrained(path)
    return path


@pytest.fixture
def adapter(tiny_model_dir, tmp_path):
    return save(load_causal_lm, tiny_model_dir, tmp_path / "policy")


@pytest.fixture
def reward(tiny_model_dir, tmp_path):
    return save(load_sequence_classifier, tiny_model_dir, tmp_path / "reward")


def change(adapter, **keys):
    file = adapter / "adapter_config.json"
    found = json.loads(file.read_text()) | keys
    file.write_text(json.dumps({key: value for key, value in found.items() if value != "missing"}))


def load(adapter, *, trainable=False):
    peft = AdapterKeys() if trainable else None
    return load_causal_lm(ModelKeys(model_name_or_path=str(adapter)), trainable=trainable, peft=peft)


def roles(sft, reward=None):
    keys = {"stage": "ppo", "output_dir": "o", "model_name_or_path": str(sft), "datasets": [{"path": "p"}]}
    keys |= {"total_episodes": 1, "reward_model_path": "r", "lora_r": 2}
    return load_roles(PPORecipe(**keys), rewards=on_base(reward) if reward else [])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "IA3"),
        ("peft_type", "PROMPT_TUNING"),
        ("peft_type", "NOPE"),
        ("peft_type", ["LORA"]),
        ("peft_type", None),
        ("peft_type", "missing"),
        ("task_type", "NOPE"),
        ("task_type", "TOKEN_CLS"),
        ("task_type", 3),
        ("r", 0),
        ("r", -4),
        ("r", 10**12),
        ("r", 2.5),
        ("r", "8"),
        ("r", True),
        ("lora_alpha", 0),
        ("lora_alpha", "16"),
        ("lora_dropout", 1.5),
        ("target_modules", 7),
        ("target_modules", [3]),
        ("target_modules", "("),
        ("target_modules", r"(.+)+!"),
        ("target_modules", r"([a-z._0-9]+)*\d!"),
        ("exclude_modules", r"([\w.]+)+!"),
        ("rank_pattern", {r"([\w.]+)+!": 2}),
        ("rank_pattern", {"q_proj": 0}),
        ("rank_pattern", ["q_proj"]),
        ("alpha_pattern", {"q_proj": "x"}),
        ("modules_to_save", "(.*)*"),
        ("modules_to_save", ["(.*)*"]),
        ("layers_to_transform", "all"),
        ("layers_pattern", "(a+)+"),
        ("megatron_config", {"a": 1}),
        ("corda_config", {"cache_file": "/etc/passwd"}),
        ("lora_ga_config", {"cache_file": "/etc/passwd"}),
        ("arrow_config", {"top_k": 1}),
        ("layer_replication", [[0, 100000000]]),
        ("init_lora_weights", "corda"),
        ("init_lora_weights", {"a": 1}),
        ("init_lora_weights", "pissa_niter_1000000"),
        ("trainable_token_indices", [10**12]),
        ("trainable_token_indices", "all"),
        ("bias", "some"),
        ("use_dora", "yes"),
        ("base_model_name_or_path", None),
        ("base_model_name_or_path", 3),
        ("base_model_name_or_path", ""),
        ("base_model_name_or_path", "http://localhost/model"),
        ("base_model_name_or_path", "/nowhere/at/all"),
    ],
)
def test_a_configuration_that_no_adapter_has_is_refused_by_its_key(adapter, key, value):
    change(adapter, **{key: value})
    begin = time.monotonic()
    with pytest.raises(ModelError, match=rf"adapter_config\.json: .*|{key}") as refused:
        load(adapter)
    assert key in str(refused.value) or "pattern" in str(refused.value) or "does not exist" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "another model" not in str(refused.value)
    assert time.monotonic() - begin < 60  # without a bound some patterns take longer than the universe is old


def test_a_module_that_a_configuration_names_is_not_imported(adapter, tmp_path, monkeypatch):
    (tmp_path / "canary.py").write_text(f"open({str(tmp_path / 'fired')!r}, 'w')")
    monkeypatch.syspath_prepend(str(tmp_path))
    change(adapter, megatron_config={"tensor_model_parallel_size": 1}, megatron_core="canary")
    with pytest.raises(ModelError, match="megatron_config"):
        load(adapter)
    change(adapter, megatron_config=None, megatron_core="canary", auto_mapping={"parent_library": "canary"})
    load(adapter)
    assert not (tmp_path / "fired").exists()


def test_patterns_that_peft_can_match_are_used(adapter, tiny_model_dir, tmp_path):
    keys = {"lora_target_modules": r".*\.(q|v)_proj"}
    wrapped = load(save(load_causal_lm, tiny_model_dir, tmp_path / "pattern", **keys))
    assert sum("lora_A" in name for name, _ in wrapped.named_parameters()) == 4  # two matrices in two layers


@pytest.mark.parametrize("pattern", ["(", r"(.+)+!", "nothing_of_that_name"])
def test_a_recipes_pattern_is_tried_before_peft_matches_it(tiny_model_dir, tmp_path, pattern):
    with pytest.raises(ModelError, match=r"pattern|matches none of the model's modules"):
        save(load_causal_lm, tiny_model_dir, tmp_path / "new", lora_target_modules=pattern)


def test_modules_to_save_that_the_model_lacks_are_refused(tiny_model_dir, tmp_path):
    with pytest.raises(ModelError, match=r"lora_modules_to_save: the model has no module nope; it has .*lm_head"):
        save(load_causal_lm, tiny_model_dir, tmp_path / "new", lora_modules_to_save=["lm_head", "nope"])


def edit(adapter, what):
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    what(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize("trainable", [False, True])
def test_a_tensor_that_an_adapter_lacks_is_named(adapter, trainable):
    name = "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"
    edit(adapter, lambda tensors: tensors.pop(name))
    with pytest.raises(ModelError, match=rf"lacks {name}, which would be random numbers"):
        load(adapter, trainable=trainable)
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj"):
        roles(adapter)


def test_a_tensor_too_many_is_named(adapter):
    edit(adapter, lambda tensors: tensors.update({"base_model.model.model.layers.9.lora_A.weight": torch.ones(1)}))
    with pytest.raises(
        ModelError, match=r"holds base_model\.model\.model\.layers\.9\.lora_A\.weight, which its adapter"
    ):
        load(adapter)


def test_an_adapter_without_tensors_is_refused(adapter):
    edit(adapter, dict.clear)
    with pytest.raises(ModelError, match="holds no tensors"):
        load(adapter)


def test_an_adapter_with_a_weight_that_is_not_a_number_is_refused(adapter):
    edit(adapter, lambda tensors: next(iter(tensors.values())).fill_(float("nan")))
    with pytest.raises(ModelError, match="holds NaN or infinity"):
        load(adapter)


def test_a_reward_adapter_is_not_a_policy(adapter, reward):
    for use in (load, roles):
        with pytest.raises(ModelError, match=r"reward is a reward model's adapter \(task_type SEQ_CLS\)"):
            use(reward)
    with pytest.raises(ModelError, match=r"holds 0 tensors named \*\.score\.weight"):
        roles(adapter, adapter)


def test_a_reward_adapter_whose_head_is_gone_is_refused(reward):
    edit(reward, lambda tensors: tensors.pop("base_model.model.score.weight"))
    with pytest.raises(ModelError, match=r"lacks base_model\.model\.score\.weight"):
        load_sequence_classifier(ModelKeys(model_name_or_path=str(reward)), trainable=True, peft=AdapterKeys())


def test_a_policy_adapter_starts_a_reward_model_with_a_new_head(adapter):
    model = load_sequence_classifier(ModelKeys(model_name_or_path=str(adapter)), trainable=True, peft=AdapterKeys())
    assert any("score" in name for name, parameter in model.named_parameters() if parameter.requires_grad)


def test_an_adapter_without_a_task_is_a_policys(adapter, tmp_path):
    change(adapter, task_type=None)
    load(adapter)
    shutil.copytree(adapter, tmp_path / "copy")
    roles(tmp_path / "copy")


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64])
def test_an_adapter_whose_weights_are_not_floats_is_refused(adapter, dtype):
    name = min(load_file(adapter / "adapter_model.safetensors"))
    edit(adapter, lambda tensors: tensors.update({name: tensors[name].to(dtype)}))
    with pytest.raises(ModelError, match=f"holds {name} as"):
        load(adapter)
