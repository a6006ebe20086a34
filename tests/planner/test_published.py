"""Plans against figures that others measured and published, each within 15 percent of what is said."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BloomConfig,
    LlamaConfig,
    MT5Config,
    PretrainedConfig,
    T5Config,
)

from alignment.config.schema import DatasetEntry, SFTRecipe
from alignment.planner.machine import CUDA_CONTEXT, GIB, Machine
from alignment.planner.memory import plan_stage
from alignment.planner.tracing import fake_memory, trace
from alignment.planner.weights import held, states

GB = 10**9
LLAMA = {  # LLaMA, https://arxiv.org/abs/2302.13971, table 2; inner sizes from its code's rounding to 256
    "7B": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "13B": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
    "33B": {"hidden_size": 6656, "intermediate_size": 17920, "num_hidden_layers": 60, "num_attention_heads": 52},
    "65B": {"hidden_size": 8192, "intermediate_size": 22016, "num_hidden_layers": 80, "num_attention_heads": 64},
}


def llama_recipe(tmp_path: Any, size: str, **keys: Any) -> SFTRecipe:
    folder = tmp_path / size
    LlamaConfig(**LLAMA[size], max_position_embeddings=2048, dtype="bfloat16").save_pretrained(folder)
    library = {"per_device_train_batch_size": 1, **keys.pop("library", {})}
    return SFTRecipe(
        stage="sft",
        output_dir="unused",
        model_name_or_path=str(folder),
        datasets=[DatasetEntry(path="unused")],
        library=library,
        **keys,
    )


@pytest.mark.parametrize(("size", "published"), [("7B", 5), ("13B", 10), ("33B", 21), ("65B", 41)])
def test_guanaco_in_4_bits(size: str, published: int, tmp_path: Any) -> None:
    """QLoRA, https://arxiv.org/abs/2305.14314, table 6, column memory; rank 64 on all linear layers (appendix B.2)."""
    recipe = llama_recipe(tmp_path, size, load_in_4bit=True, lora_r=64)
    parts = plan_stage(recipe, Machine()).phases[-1].parts
    loaded = parts["weights"] + parts["adapters, trained"] + CUDA_CONTEXT  # as a device shows it
    assert loaded == pytest.approx(published * GB, rel=0.15)


def test_65b_trains_in_48_gb(tmp_path: Any) -> None:
    """QLoRA, abstract: one 48 GB device; sequences of 512 tokens, one at a time, paged optimizer."""
    recipe = llama_recipe(
        tmp_path, "65B", load_in_4bit=True, lora_r=64, max_length=512, library={"optim": "paged_adamw_32bit"}
    )
    plan = plan_stage(recipe, Machine(memory=48 * GB))
    assert plan.spare > 0
    assert plan.peak.total > 0.75 * 48 * GB


@pytest.mark.parametrize("strategy", ["single", "zero1", "zero2", "zero3"])
def test_16_bytes_a_parameter(strategy: str, tmp_path: Any) -> None:
    """ZeRO, https://arxiv.org/abs/1910.02054, section 3.1 and figure 1: 2 + 2 + 12 bytes, cut into 64 parts or not."""
    parts = 1 if strategy == "single" else 64
    recipe = llama_recipe(tmp_path, "7B", peft_method="full", library={"gradient_accumulation_steps": 2})
    plan = plan_stage(recipe, Machine(gpus=parts, strategy=strategy))
    found = plan.phases[-1].parts
    kept = sum(found.get(name, 0) for name in ("weights, trained", "gradients", "optimizer states"))
    expected = {
        "single": 16.0,
        "zero1": 2 + 2 + 12 / parts,
        "zero2": 2 + (2 + 12) / parts,
        "zero3": 16 / parts,
    }[strategy]
    assert kept == pytest.approx(expected * plan.parameters, rel=1e-4)


T5 = {
    "d_kv": 64,
    "num_layers": 24,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "decoder_start_token_id": 0,
}
PEFT_TABLE = [  # https://github.com/huggingface/peft, README, one A100 of 80 GB; rank 8 on the library's own targets
    ("T0-3B, all weights", T5Config(d_model=2048, d_ff=5120, num_heads=32, vocab_size=32128, **T5), False, 47.14),
    ("T0-3B, LoRA", T5Config(d_model=2048, d_ff=5120, num_heads=32, vocab_size=32128, **T5), True, 14.4),
    ("mt0-xxl, LoRA", MT5Config(d_model=4096, d_ff=10240, num_heads=64, vocab_size=250112, **T5), True, 56.0),
    ("bloomz-7b1, LoRA", BloomConfig(hidden_size=4096, n_layer=30, n_head=32, vocab_size=250880), True, 32.0),
]


@pytest.mark.parametrize(("name", "config", "lora", "published"), PEFT_TABLE, ids=[row[0] for row in PEFT_TABLE])
def test_peft_table(name: str, config: PretrainedConfig, lora: bool, published: float) -> None:
    """Float32, batches of 8 tweets (about 64 tokens) with a short label; PEFT's examples count in units of 2^20."""
    auto = AutoModelForCausalLM if isinstance(config, BloomConfig) else AutoModelForSeq2SeqLM
    machine = Machine()
    with torch.device("meta"):
        model = auto.from_config(config, dtype=torch.float32)
        if lora:
            model = get_peft_model(model, LoraConfig(r=8, lora_alpha=32, lora_dropout=0.1))
    found = held(model, machine)
    device, _ = states(found, machine, "adamw_torch_fused")

    def step() -> Any:
        ids = torch.zeros(8, 64, dtype=torch.long)
        labels = ids if auto is AutoModelForCausalLM else torch.zeros(8, 2, dtype=torch.long)
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, use_cache=False).loss

    model.train()
    with fake_memory(model):
        moving = trace(model, step, dtype=None, grad=True)
    total = CUDA_CONTEXT + sum(found.parts.values()) + device["optimizer states"]
    total += max(moving.peak_with_gradients, device["gradients"])
    assert total == pytest.approx(published * GIB, rel=0.15)
