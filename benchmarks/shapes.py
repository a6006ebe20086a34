"""Model folders of a known shape with random weights, for measuring memory and time, to which weights do not matter.

One decoder layer is made and written under every layer's name, a file per layer, so that a 70B-shaped folder takes as
much memory to write as one of its layers.
"""

import json
import sys
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    # the smallest here, to try a script with
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 172,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 512,
    },
    # TinyLlama-1.1B
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "vocab_size": 32_000,
    },
    # Llama-2-7B, https://arxiv.org/abs/2307.09288
    "7b": {
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32_000,
    },
    # Llama-2-70B, the same source
    "70b": {
        "hidden_size": 8192,
        "intermediate_size": 28_672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 32_000,
    },
}
PRECISIONS = ("bf16", "nf4")


def make_model(shape: str, precision: str, folder: Path) -> Path:
    """Write a Llama of `shape` whose weights are in bfloat16, or in NF4 with double quantisation as in QLoRA."""
    if (folder / "config.json").is_file():
        return folder
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    layers = SHAPES[shape]["num_hidden_layers"]
    config = LlamaConfig(**{**SHAPES[shape], "num_hidden_layers": 1}, max_position_embeddings=4096, dtype="bfloat16")
    torch.manual_seed(0)
    one = folder / "one_layer"
    LlamaForCausalLM._from_config(config, dtype=torch.bfloat16).save_pretrained(one)
    if precision == "nf4":
        _quantise(one)
    tensors = load_file(one / "model.safetensors")
    layer = {name: tensor for name, tensor in tensors.items() if ".layers.0." in name}
    rest = {name: tensor for name, tensor in tensors.items() if name not in layer}
    parts = [rest] + [{n.replace(".layers.0.", f".layers.{i}."): t for n, t in layer.items()} for i in range(layers)]
    places: dict[str, str] = {}
    for number, part in enumerate(parts):
        name = f"model-{number:05}-of-{len(parts):05}.safetensors"
        save_file(part, folder / name, metadata={"format": "pt"})
        places |= dict.fromkeys(part, name)
    _dump(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})
    whole = json.loads((one / "config.json").read_text())
    for file in one.iterdir():
        file.unlink()
    one.rmdir()
    _dump(folder / "config.json", whole | {"num_hidden_layers": layers})  # last: it marks the folder as whole
    return folder


def _quantise(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=quantization, dtype=torch.bfloat16
    ).save_pretrained(folder)


def _dump(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    make_model(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
