"""Training keys that only the libraries can judge: refused before anything is read or written."""

import json
import os
from pathlib import Path

import pytest
import yaml

from alignment.config import check_file, load_recipe
from alignment.errors import ModelError, RecipeError
from alignment.policy.methods import adapter_config
from alignment.policy.targets import require_modules
from alignment.train.trial import require_accepted
from tests.config.test_loading import MINIMAL
from tests.models import make_model, make_tokenizer

COSINE = "cosine_with_restarts"


def write(tmp_path: Path, stage: str, given: dict) -> str:
    file = tmp_path / "r.yaml"
    file.write_text(yaml.safe_dump({"stage": stage} | MINIMAL[stage] | given, sort_keys=False))
    return str(file)


def refused(tmp_path: Path, stage: str, given: dict) -> list[str]:
    path = write(tmp_path, stage, given)
    with pytest.raises(RecipeError) as caught:
        require_accepted(check_file(path))
    return [fault.replace(path, "r.yaml") for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("given", "key", "message"),
    [
        ({"optim_args": "a"}, "optim_args", "not enough values to unpack"),
        ({"optim_args": "momentum=0.9"}, "optim_args", "has no effect with optim adamw_torch"),
        ({"optim": "lomo"}, "optim", "install `lomo_optim`"),
        ({"optim": "adamw_torch_npu_fused"}, "optim", "torch_npu"),
        ({"lr_scheduler_kwargs": {"nope": 1}}, "lr_scheduler_kwargs", "unexpected keyword argument 'nope'"),
        ({"lr_scheduler_kwargs": {"num_cycles": "x"}, "lr_scheduler_type": COSINE}, "lr_scheduler_kwargs", "'x'"),
        ({"lr_scheduler_kwargs": "text"}, "lr_scheduler_kwargs", "must be a mapping"),
        ({"lr_scheduler_kwargs": "{bad"}, "lr_scheduler_kwargs", "enclosed in double quotes"),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "lr_scheduler_type", "num_decay_steps"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "lr_scheduler_type", "min_lr"),
        ({"lr_scheduler_type": "reduce_lr_on_plateau"}, "lr_scheduler_type", "requires an eval strategy"),
        ({"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 5}}, "lr_scheduler_kwargs", "lr_end"),
        ({"torch_compile_backend": "nope"}, "torch_compile_backend", "is no backend of torch.compile"),
        ({"torch_compile_mode": "nope"}, "torch_compile_mode", "mode=nope"),
        ({"gradient_checkpointing_kwargs": {"nope": 1}}, "gradient_checkpointing_kwargs", "nope"),
        ({"accelerator_config": {"nope": 1}}, "accelerator_config", "unexpected keyword argument 'nope'"),
        ({"fsdp": "nope"}, "fsdp", "nope"),
        ({"debug": "nope"}, "debug", "nope is not a valid DebugOption"),
        ({"use_liger_kernel": True}, "use_liger_kernel", "liger_kernel, which is not installed"),
    ],
)
def test_a_refusal_of_a_library_is_reported_with_its_key(tmp_path, given, key, message):
    [fault] = refused(tmp_path, "sft", given)
    assert fault.startswith("r.yaml:")
    assert f": {key}: " in fault
    assert message in fault


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"optim": "sgd", "optim_args": "momentum=0.9"},
        {"optim": "adafactor"},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
        {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 5}},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}},
        {"accelerator_config": {"split_batches": True}},
        {"torch_compile_backend": "eager"},
        {"dataloader_num_workers": 2, "dataloader_prefetch_factor": 2},
        {"adam_beta2": 0.98, "max_steps": -1, "warmup_steps": 0.1},
    ],
)
def test_values_that_the_libraries_accept_are_not_refused(tmp_path, given, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    before = dict(os.environ)
    require_accepted(check_file(write(tmp_path, "sft", given)))
    assert dict(os.environ) == before


def test_every_key_at_fault_is_reported(tmp_path):
    faults = refused(tmp_path, "dpo", {"optim_args": "a", "lr_scheduler_kwargs": {"b": 1}})
    assert [fault.split(": ")[1] for fault in faults] == ["optim_args", "lr_scheduler_kwargs"]


def test_missing_hardware_is_refused_only_where_the_stage_runs(tmp_path, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    recipes = check_file(write(tmp_path, "sft", {"ddp_backend": "gloo"}))
    require_accepted(recipes, here=False)
    with pytest.raises(RecipeError, match="ddp_backend: is for several processes, and this start has one"):
        require_accepted(recipes)


def test_tf32_is_refused_where_it_runs_alone(tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this GPU may have tf32")
    recipes = check_file(write(tmp_path, "sft", {"tf32": True}))
    require_accepted(recipes, here=False)
    with pytest.raises(RecipeError, match="tf32: the library refuses it"):
        require_accepted(recipes)


@pytest.mark.parametrize("key", ["deepspeed", "fsdp_config", "accelerator_config"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"{", "invalid JSON"),
        (b"[1]", "holds a list, not a mapping"),
        (b'{"a": NaN}', "not a finite number"),
        (b'{"a": 1, "a": 2}', "'a' twice"),
        (b'{"api_key": "hunter-22"}', "holds a key, token or password"),
        (b"\xff\xfe{", "invalid UTF-8"),
        (b"[" * 100_000, "inside one another"),
    ],
)
def test_files_of_json_are_read_before_the_libraries_read_them(tmp_path, key, content, message):
    file = tmp_path / "c.json"
    if content is not None:
        file.write_bytes(content)
    [fault] = refused(
        tmp_path, "sft", {key: str(file), "fsdp": "full_shard"} if key == "fsdp_config" else {key: str(file)}
    )
    assert f": {key}: {file}" in fault
    assert message in fault
    assert "hunter" not in fault


def test_deepspeeds_file_has_a_stage(tmp_path):
    for zero, message in ((1, "must be a mapping"), ({"stage": 7}, "found 7"), ({"stage": "three"}, "found 'three'")):
        [fault] = refused(tmp_path, "sft", {"deepspeed": {"zero_optimization": zero}})
        assert message in fault
    file = tmp_path / "c.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 2}}))
    load_recipe("sft", ["--config", write(tmp_path, "sft", {"deepspeed": str(file)})])


def test_modules_that_an_adapter_names_exist(tmp_path):
    model = make_model(make_tokenizer())

    def check(**given: object) -> None:
        recipe = load_recipe("sft", ["--config", write(tmp_path, "sft", {})]).model_copy(update=given)
        require_modules(model, adapter_config(recipe, task="CAUSAL_LM"))

    check(lora_target_modules=["q_proj", "layers.1.mlp.up_proj"], lora_modules_to_save=["lm_head"])
    check(lora_target_modules="all-linear")
    check(lora_target_modules=r".*layers\.1\..*_proj")
    with pytest.raises(ModelError, match=r"expression q_proj matches none .* write a list: \[q_proj\]"):
        check(lora_target_modules="q_proj")
    with pytest.raises(ModelError, match=r"expression .*nope matches none .* whole names, model\.layers\.\d"):
        check(lora_target_modules=".*nope")
    with pytest.raises(ModelError, match=r"lora_modules_to_save: the model has no module nope; it has .*lm_head"):
        check(lora_modules_to_save=["nope"])
    with pytest.raises(ModelError, match="lora_target_modules: the model has no module nope"):
        check(lora_target_modules=["q_proj", "nope"])


@pytest.mark.parametrize(
    ("key", "words"),
    [("fp16", "on a GPU alone, and there is none here; take it out"), ("activation_offloading", "off a GPU")],
)
def test_keys_that_need_a_gpu_are_refused_without_one(tmp_path, monkeypatch, key, words):
    """Accelerate computes in float32 on a CPU whatever fp16 says."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    [fault] = refused(tmp_path, "sft", {key: True})
    assert words in fault
    require_accepted(check_file(write(tmp_path, "sft", {key: True})), here=False)
