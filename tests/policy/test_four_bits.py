"""Weights in 4 bits: what holds them where weights are cut, and what they are computed in on a CPU."""

import json

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, dequantize_blockwise, quantize_4bit
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from alignment.config.schema import DatasetEntry, ModelKeys, PPORecipe
from alignment.errors import ModelError
from alignment.planner.machine import Machine
from alignment.planner.memory import plan_stage
from alignment.policy import four_bits
from alignment.policy.base import load_causal_lm
from alignment.policy.four_bits import quantization, quantized_widths, require_exact, rounded
from alignment.policy.precision import trains_in_bf16
from recipes import sft
from tests.models import make_model, make_tokenizer, save_tiny_model


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


@pytest.mark.parametrize("sizes", [{"hidden_size": 36, "num_attention_heads": 2}, {"hidden_size": 64}], ids=str)
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


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("stored", [torch.uint8, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_widths_are_refused_exactly_where_the_kernel_is_wrong(kind, stored, nested):
    """Whatever the CPU, and however weights and constants are held: against the definition, code times constant."""
    widths, wrong = (8, 24, 32, 48, 64, 96, 128, 192, 288), set()
    for width in widths:
        numbers = torch.randn(128, width, generator=torch.Generator().manual_seed(1))
        packed, state = quantize_4bit(
            numbers, blocksize=64, quant_type=kind, compress_statistics=nested, quant_storage=stored
        )
        constants = dequantize_blockwise(state.absmax, state.state2) + state.offset if nested else state.absmax
        both = packed.view(torch.uint8).flatten()
        codes = state.code[torch.stack([both >> 4, both & 15], dim=1).flatten().long()]
        expected = codes * constants.repeat_interleave(64)
        if not torch.allclose(dequantize_4bit(packed, state).flatten(), expected):
            wrong.add(width)
    assert {width for width in widths if not four_bits._is_exact(width, kind, 64)} == wrong
    assert not wrong & {64, 128, 192}


def test_widths_that_bitsandbytes_dequantises_wrongly_are_refused(monkeypatch):
    """The same numbers must not depend on where rows end; some CPU kernels take another block's constant there."""
    require_exact([64, 4096], "base", "nf4")
    real = four_bits.dequantize_4bit
    monkeypatch.setattr(four_bits, "dequantize_4bit", lambda data, state: real(data, state) * (state.shape[1] / 64))
    four_bits._is_exact.cache_clear()
    with pytest.raises(ModelError, match="of 96 columns to wrong weights; load unquantised weights with load_in_4bit"):
        require_exact([64, 96], "base", "nf4")
    four_bits._is_exact.cache_clear()


@pytest.fixture
def wrong_at_32(monkeypatch):
    """A CPU whose kernel is wrong for matrices of 32 columns, whatever the real one's is."""
    monkeypatch.setattr(four_bits, "_is_exact", lambda width, *_: width != 32)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def test_a_stage_is_refused_before_its_folder_exists_and_a_model_as_it_loads(wrong_at_32, tiny_model_dir, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"instruction": "What is 1?", "input": "", "output": "Thank you"}) + "\n")
    file = tmp_path / "sft.yaml"
    given = {"stage": "sft", "output_dir": str(tmp_path / "run"), "model_name_or_path": str(tiny_model_dir)}
    file.write_text(json.dumps({**given, "datasets": [{"path": str(rows)}], "load_in_4bit": True}))
    keys = ModelKeys(model_name_or_path=str(tiny_model_dir), load_in_4bit=True)
    for refuse in (
        lambda: sft.main(["--config", str(file)]),
        lambda: load_causal_lm(keys, trainable=False),
        lambda: rounded(torch.ones(4, 32), keys),
    ):
        with pytest.raises(ModelError, match="4-bit matrices of 32 columns to wrong weights") as refused:
            refuse()
        assert refused.value.exit_code == 2
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_quantised_on_disk_is_refused_as_it_loads(wrong_at_32, tiny_model_dir, tmp_path):
    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="fp4")
    AutoModelForCausalLM.from_pretrained(tiny_model_dir, quantization_config=four).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="of 32 columns to wrong weights"):
        load_causal_lm(ModelKeys(model_name_or_path=str(tmp_path)), trainable=False)


def test_only_plans_for_cpus_are_refused(wrong_at_32, tiny_model_dir):
    planned = recipe().model_copy(update={"model_name_or_path": str(tiny_model_dir), "reward_model_path": None})
    assert plan_stage(planned, Machine(gpu=True)).parameters
    with pytest.raises(ModelError, match="of 32 columns to wrong weights"):
        plan_stage(planned, Machine(gpu=False))


def test_modules_that_stay_whole_and_outputs_are_not_refused():
    model = make_model(make_tokenizer(), hidden_size=64, intermediate_size=96, layers=1)
    keys = ModelKeys(model_name_or_path="unused", load_in_4bit=True)
    assert quantized_widths(model, keys, []) == {64, 96}
    assert quantized_widths(model, keys, ["model.layers.0.mlp.down_proj"]) == {64}
