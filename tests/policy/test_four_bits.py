"""Weights in 4 bits: what holds them where weights are cut, and what they are computed in on a CPU."""

import pytest
import torch

from alignment.config.schema import DatasetEntry, ModelKeys, PPORecipe
from alignment.policy.base import load_causal_lm
from alignment.policy.four_bits import quantization
from alignment.policy.precision import trains_in_bf16
from tests.models import save_tiny_model


def recipe(**library):
    return PPORecipe(
        stage="ppo", output_dir="unused", model_name_or_path="unused", datasets=[DatasetEntry(path="unused")],
        reward_model_path="unused", total_episodes=8, load_in_4bit=True, library=library,
    )  # fmt: skip


@pytest.mark.parametrize("engine", ["FSDP", "DEEPSPEED"])
@pytest.mark.parametrize("checkpoint", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bf16", [False, True])
def test_packed_weights_are_stored_in_what_training_casts_to(monkeypatch, engine, checkpoint, bf16):
    monkeypatch.setenv(f"ACCELERATE_USE_{engine}", "true")
    stored = quantization(recipe(bf16=bf16), checkpoint).bnb_4bit_quant_storage
    assert stored == (torch.bfloat16 if bf16 else checkpoint)


def test_whole_models_store_bytes():
    assert quantization(recipe(bf16=True), torch.float32).bnb_4bit_quant_storage == torch.uint8


@pytest.mark.parametrize(
    ("library", "gpu", "found"),
    [({}, True, True), ({}, False, False), ({"fp16": True}, True, False), ({"bf16": False}, True, False)],
    ids=str,
)
def test_a_recipe_that_names_no_precision_follows_the_gpu(monkeypatch, library, gpu, found):
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: gpu)
    assert trains_in_bf16(library) is found


def test_a_launchers_file_may_name_the_precision(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert trains_in_bf16({})


@pytest.mark.parametrize("sizes", [{"hidden_size": 32}, {"hidden_size": 64}], ids=str)
def test_a_cpu_with_bf16_instructions_computes_in_float32_too(tmp_path, monkeypatch, sizes):
    """Whatever the CPU: bitsandbytes asks once, when a layer is made, whether it may compute in bfloat16."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    base = save_tiny_model(tmp_path / "base", initializer_range=0.3, **sizes)
    model = load_causal_lm(ModelKeys(model_name_or_path=str(base), load_in_4bit=True), trainable=False)
    ids = torch.arange(3, 12).unsqueeze(0)
    with_gradients = model.train()(input_ids=ids).logits
    with torch.no_grad():
        evaluated = model.eval()(input_ids=ids).logits
    assert not getattr(model.model.layers[0].mlp.up_proj.weight.quant_state, "packing_format_for_cpu", False)
    assert torch.equal(evaluated, with_gradients)
