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


def make_special_tokenizer(opening: str | None, ending: str, *, pad: str = "[PAD]", more: dict[str, Any]) -> Any:
    """A tokenizer that puts `opening` before a text and `ending` behind it; `more`: further special tokens by name."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    core = make_tokenizer(chat_template=None).backend_tokenizer
    texts = [pad, *([opening] if opening else []), ending]
    texts += [text for value in more.values() for text in (value if isinstance(value, list) else [value])]
    texts = list(dict.fromkeys(texts))
    core.add_special_tokens(texts)
    single = f"{opening or ''} $A {ending}".strip()
    core.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[(text, core.token_to_id(text)) for text in (opening, ending) if text]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token=pad, model_max_length=256, **more)


def save_tiny_encoder(path: Path, *, kind: str = "bert", masks: bool = True, width: int = 32) -> Path:
    """Write a random BERT or ModernBERT with a tokenizer of `[CLS] text [SEP]`; masks: it has a mask token."""
    import torch
    from transformers import BertConfig, BertForMaskedLM, ModernBertConfig, ModernBertForMaskedLM

    more = {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    tokenizer = make_special_tokenizer("[CLS]", "[SEP]", more=more | ({"mask_token": "[MASK]"} if masks else {}))
    sizes = {"vocab_size": len(tokenizer), "hidden_size": width, "intermediate_size": 64, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "max_position_embeddings": 256, "pad_token_id": tokenizer.pad_token_id}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "bert":
            model: Any = BertForMaskedLM(BertConfig(**sizes))
        else:
            ids = {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
            ids |= {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
            model = ModernBertForMaskedLM(ModernBertConfig(**sizes, **ids, local_attention=16))
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def save_tiny_t5(path: Path, *, sentinels: int = 100, width: int = 32, chat_template: str | None = None) -> Path:
    """Write a random T5 with a tokenizer of `text </s>` and the tokens `<extra_id_0>` to `<extra_id_99>`."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    names = [f"<extra_id_{number}>" for number in range(sentinels)]
    more = {"eos_token": "</s>", "unk_token": "<unk>", "additional_special_tokens": names}
    tokenizer = make_special_tokenizer(None, "</s>", pad="<pad>", more=more)
    tokenizer.chat_template = chat_template
    sizes = {"vocab_size": len(tokenizer), "d_model": width, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = T5Config(**sizes, **ids, decoder_start_token_id=tokenizer.pad_token_id, dropout_rate=0.0)
        T5ForConditionalGeneration(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def save_tiny_bart(path: Path) -> Path:
    """Write a random BART of 64 tokens with a tokenizer of `<s> text </s>`; its decoder begins with `</s>`."""
    import torch
    from transformers import BartConfig, BartForConditionalGeneration

    more = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = make_special_tokenizer("<s>", "</s>", pad="<pad>", more=more)
    sizes = {"vocab_size": len(tokenizer), "d_model": 32, "max_position_embeddings": 64, "dropout": 0.0}
    for part in ("encoder", "decoder"):
        sizes |= {f"{part}_layers": 2, f"{part}_attention_heads": 4, f"{part}_ffn_dim": 64}
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BartConfig(**sizes, **ids, decoder_start_token_id=tokenizer.eos_token_id)
        BartForConditionalGeneration(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
