"""What the model recipes name on the Hub, in miniature: models of the same architecture, tokenizers, data sets.

Everything lies under its Hub id in one folder. A path that exists here wins over the Hub, so that a recipe that is run
from that folder finds its model and its data without a changed key.
"""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PreTrainedTokenizerFast, Qwen3Config

WORDS = ["fox", "dog", "cat", "ball", "story", "river", "tree", "friend", "house", "bird"]
CORPUS = [
    f"Tell me about the {word}. The {word} is small and quick; the user asks, the assistant says." for word in WORDS
]
LLAMA = {"vocab_size": 128256, "num_key_value_heads": 8, "max_position_embeddings": 131072}
PUBLISHED: dict[str, Any] = {  # as config.json on the Hub has them
    "Qwen/Qwen3-0.6B-Base": Qwen3Config(
        vocab_size=151936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
        num_key_value_heads=8, head_dim=128, max_position_embeddings=32768, tie_word_embeddings=True,
        bos_token_id=151643, eos_token_id=151643,
    ),
    "meta-llama/Llama-3.1-8B-Instruct": LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        bos_token_id=128000, eos_token_id=[128001, 128008, 128009], **LLAMA,
    ),
    "mistralai/Mistral-7B-v0.1": MistralConfig(
        vocab_size=32000, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, max_position_embeddings=32768, sliding_window=4096, bos_token_id=1, eos_token_id=2,
    ),
    "meta-llama/Llama-3.1-70B-Instruct": LlamaConfig(
        hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64,
        bos_token_id=128000, eos_token_id=[128001, 128008, 128009], **LLAMA,
    ),
}  # fmt: skip


def write_published(folder: Path) -> None:
    """Write the configurations of the real models, which is all that planning reads."""
    for name, config in PUBLISHED.items():
        config.dtype = torch.bfloat16
        config.save_pretrained(folder / name)


def write_small(folder: Path, name: str) -> None:
    """Write a random model of the real one's class, with a tokenizer like its own, and the data sets."""
    tokenizer = _tokenizer(name)
    config = type(PUBLISHED[name])(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=4096, initializer_range=0.2,
        tie_word_embeddings=bool(PUBLISHED[name].tie_word_embeddings),
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    ends = ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")  # what Llama's generation_config.json lists
    if "Llama" in name:
        model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(list(ends))
    model.save_pretrained(folder / name)
    tokenizer.save_pretrained(folder / name)


def _tokenizer(name: str) -> Any:
    """A small tokenizer with the real one's special tokens, template and habits at the beginning of a text."""
    if "Mistral" in name:
        return _sentencepiece()
    if "Qwen" in name:
        special, kept, bos = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], ["<think>", "</think>"], None
        named = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
        template = "qwen3.jinja"
    else:
        special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>"]
        special, kept, bos = [*special, "<|eot_id|>", "<|python_tag|>"], [], "<|begin_of_text|>"
        named = {"eos_token": "<|eot_id|>", "bos_token": bos}
        template = "llama3_1.jinja"
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(CORPUS, trainer)
    if bos:
        core.post_processor = processors.TemplateProcessing(f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **named)
    tokenizer.add_tokens(kept)  # Qwen's marks of thinking are tokens, and no special ones
    tokenizer.chat_template = files("trl").joinpath("chat_templates", template).read_text(encoding="utf-8")
    return tokenizer


def _sentencepiece() -> Any:
    """As Mistral-7B-v0.1 has it: a space before every text, bytes for what is unknown, BOS, and no template."""
    core = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    core.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False))
    core.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def write_data(folder: Path) -> None:
    """Write the recipes' data sets, with the splits and columns that they have on the Hub."""
    chats = DatasetDict(train_sft=Dataset.from_list(list(_ultrachat())))
    chats.save_to_disk(folder / "HuggingFaceH4" / "ultrachat_200k")
    prompts = [{"prompt": [{"content": f"Tell me about the {word}.", "role": "user"}]} for word in WORDS]
    splits = DatasetDict(train=Dataset.from_list(prompts), test=Dataset.from_list(prompts))
    splits.save_to_disk(folder / "trl-lib" / "ultrafeedback-prompt")
    _write_gsm8k(folder / "openai" / "gsm8k")


def _write_gsm8k(folder: Path) -> None:
    """Write rows as the Hub's data set has them: one folder for each configuration, which the card names."""
    (folder / "main").mkdir(parents=True)
    rows = [
        {"question": f"What is {n} plus {n}?", "answer": f"It is {n}+{n}=<<{n}+{n}={2 * n}>>{2 * n}.\n#### {2 * n}"}
        for n in range(12)
    ]
    Dataset.from_list(rows).to_parquet(folder / "main" / "train-00000-of-00001.parquet")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n    path: main/train-*\n---\n"
    )


def write_binarized(folder: Path) -> None:
    """Write published preferences in the layout of the Hub's."""
    preferences = DatasetDict(train_prefs=Dataset.from_list(list(_ultrafeedback())))
    preferences.save_to_disk(folder / "HuggingFaceH4" / "ultrafeedback_binarized")


def _ultrachat() -> Iterator[dict[str, Any]]:
    for index in range(40):
        word = WORDS[index % len(WORDS)]
        question = f"Tell me about the {word}, number {index}."
        texts = [question, f"The {word} is small.", "Say more.", f"The {word} is small and quick."]
        messages = [{"content": text, "role": ("user", "assistant")[turn % 2]} for turn, text in enumerate(texts)]
        yield {"prompt": question, "prompt_id": f"{index:064x}", "messages": messages}


def _ultrafeedback() -> Iterator[dict[str, Any]]:
    for index, word in enumerate(WORDS):
        question = f"Tell me about the {word}."
        sides = {}
        for side, answer in (("chosen", f"The {word} is small and quick."), ("rejected", "No.")):
            sides[side] = [{"content": question, "role": "user"}, {"content": answer, "role": "assistant"}]
        yield {
            "prompt": question,
            "prompt_id": f"{index:064x}",
            **sides,
            "messages": sides["chosen"],
            "score_chosen": 8.0,
            "score_rejected": 4.5,
        }
