"""Random models with fixed seeds, in shapes that are known, and a tokenizer that reads any text, a byte a token."""

import gc
from pathlib import Path
from typing import Any

import torch

from benchmarks import ppo_memory
from benchmarks.gpu.step import Findings, Place, run_step
from benchmarks.shapes import SHAPES, make_model

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = {"unk_token": "<|unk|>", "pad_token": "<|pad|>", "eos_token": "<|im_end|>"}
SMALL: dict[str, dict[str, int]] = {
    "cuda": {  # Qwen3-0.6B, https://arxiv.org/abs/2505.09388
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151_936,
    },
    "cpu": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 512,
    },
}
LARGE = {"cuda": "7b", "cpu": "tiny"}
CONTEXT = 4096


def main(place: Place, found: Findings, variant: str) -> None:
    """Make the models of one size."""
    if variant == "small":
        found.numbers(parameters=make_small(small(place), SMALL[place.device], place.device))
        return
    folder = make_model(LARGE[place.device], "nf4", large(place))
    save_tokenizer(folder, SHAPES[LARGE[place.device]]["vocab_size"])
    found.numbers(gib=sum(file.stat().st_size for file in folder.iterdir()) / 2**30)


def small(place: Place) -> Path:
    """Return the path of the model of Qwen3-0.6B's shape."""
    return place.models / "small"


def large(place: Place) -> Path:
    """Return the path of the NF4 model of Llama-2-7B's shape."""
    return place.models / "large"


def make_small(folder: Path, shape: dict[str, int], device: str) -> int:
    """Write a Qwen3 in bfloat16. Returns: its parameters."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(**shape, max_position_embeddings=CONTEXT, tie_word_embeddings=True, dtype="bfloat16")
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen3ForCausalLM._from_config(config, dtype=torch.bfloat16)
    count = sum(parameter.numel() for parameter in model.parameters())
    model.save_pretrained(folder)
    save_tokenizer(folder, shape["vocab_size"])
    return count


def save_tokenizer(folder: Path, vocabulary: int) -> None:
    """Write a tokenizer of `vocabulary` tokens: the bytes, three special ones, and words that no text is read as."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = [*SPECIAL.values(), "<|im_start|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokens += [f"w{number}" for number in range(len(tokens), vocabulary)]
    core = Tokenizer(models.BPE(vocab={token: place for place, token in enumerate(tokens)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([*SPECIAL.values(), "<|im_start|>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=CONTEXT, **SPECIAL)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)


def make_reward_adapter(place: Place, folder: Path) -> None:
    """Write a reward model's random adapter on the small model."""
    ppo_memory.make_reward_adapter(small(place), folder, on_gpu=place.on_gpu)
    save_tokenizer(folder, SMALL[place.device]["vocab_size"])


def let_go() -> None:
    """Give back what the models of this process held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def common_keys(place: Place) -> dict[str, Any]:
    """What every recipe here sets."""
    return {
        "report_to": "none",
        "dtype": "bfloat16" if place.on_gpu else "auto",
        "lora_r": 16 if place.on_gpu else 4,
        "lora_alpha": 32 if place.on_gpu else 8,
        "learning_rate": 1e-4,
        "gradient_checkpointing": True,
        "logging_steps": 1,
    }


if __name__ == "__main__":
    run_step(main)
