"""Tiny random models for tests: a Llama with its own tokenizer and chat template, made in about a second."""

from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PAD, EOS, START = "<|pad|>", "<|im_end|>", "<|im_start|>"
CORPUS = (
    "the quick brown fox jumps over the lazy dog. Please tell me a story about a small cat and a big red ball. "
    "Thank you for asking! user assistant system question answer. What is the name of your friend? 0 1 2 3 4 5 6 7 8 9 "
)


def make_tokenizer(*, vocab_size: int = 300, chat_template: str | None = CHAT_TEMPLATE) -> Any:
    """A byte-level BPE tokenizer: pad is 0, EOS `<|im_end|>` is 1, `<|im_start|>` is 2; it adds no BOS."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, EOS, START],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([CORPUS] * 4, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token=PAD, eos_token=EOS, model_max_length=256)
    tokenizer.chat_template = chat_template
    return tokenizer


def make_model(tokenizer: Any, *, seed: int = 0, hidden_size: int = 32, layers: int = 2, **config: Any) -> Any:
    """A random float32 `LlamaForCausalLM` for `tokenizer`; keyword arguments go to its `LlamaConfig`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": False,
        **config,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(**settings)).eval()


def save_tiny_model(path: Path, *, seed: int = 0, chat_template: str | None = CHAT_TEMPLATE, **config: Any) -> Path:
    """Write a tiny model and its tokenizer to `path` as `from_pretrained` reads them."""
    tokenizer = make_tokenizer(chat_template=chat_template)
    make_model(tokenizer, seed=seed, **config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def on_base(*paths: Path | str) -> list[Any]:
    """Reward adapters as roles on the policy's base, in their order."""
    from alignment.policy.reward_models import RewardModel, name_roles

    return name_roles([RewardModel.resolve(str(path)) for path in paths])
