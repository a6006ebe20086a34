"""Writes everything the tiny recipe starts from: instruction data, prompts, a tokenizer, and a model of random weights.

    python -m recipes.tiny.generate --output_dir runs/tiny/data --seed 0

The same seed writes the same bytes.
"""

import argparse
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.data.rows import Message
from alignment.json_lines import lines_of
from alignment.run.files import write_atomic
from recipes.tiny.diary import entry
from recipes.tiny.grammar import FRAMES, Question, answer, ask, draw_manner, draw_questions
from recipes.tiny.world import ANIMALS

HELD_OUT_FRAMES = 2  # phrasings of each animal's questions that only held-out prompts use
VOCABULARY = 768
CONTEXT = 256
BOS, PAD, END, USER, ASSISTANT = "<|begin|>", "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many rows each file gets."""

    demonstrations: int = 6000
    diary: int = 600
    train_prompts: int = 768
    heldout_prompts: int = 150
    heldout_diary: int = 60


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and write the folder."""
    parser = argparse.ArgumentParser(prog="python -m recipes.tiny.generate", description=__doc__)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    for name, default in vars_of(Sizes()).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args(argv)
    sizes = Sizes(**{name: getattr(arguments, name) for name in vars_of(Sizes())})
    texts = write_data(arguments.output_dir, sizes, arguments.seed)
    write_model(arguments.output_dir / "model", texts, arguments.seed)


def vars_of(sizes: Sizes) -> dict[str, int]:
    """Return the sizes by name."""
    return {name: getattr(sizes, name) for name in Sizes.__slots__}


def write_data(output_dir: Path, sizes: Sizes, seed: int) -> list[str]:
    """Write the JSONL files; return all text a model will see in training."""
    rng = random.Random(seed)
    train, heldout = split_phrasings(rng)

    def draw(frames: dict[str, list[int]], question: Question) -> list[Message]:
        return [{"role": "user", "content": ask(question, rng.choice(frames[question.animal]), rng)}]

    demonstrations = []
    for question in draw_questions(rng, sizes.demonstrations, repeat=True):
        completion = [{"role": "assistant", "content": answer(question, draw_manner(rng), rng)}]
        demonstrations.append({"prompt": draw(train, question), "completion": completion})
    train_prompts = [draw(train, question) for question in draw_questions(rng, sizes.train_prompts, repeat=True)]
    heldout_prompts = [draw(heldout, question) for question in draw_questions(rng, sizes.heldout_prompts, repeat=False)]
    diary = [{"text": entry(rng)} for _ in range(sizes.diary + sizes.heldout_diary)]
    files = {
        "demonstrations": demonstrations,
        "diary": diary[: sizes.diary],
        "diary_heldout": diary[sizes.diary :],
        "prompts_train": [{"prompt": prompt} for prompt in train_prompts],
        "prompts_heldout": [{"prompt": prompt} for prompt in heldout_prompts],
    }
    output_dir.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        write_atomic(output_dir / f"{name}.jsonl", lines_of(rows))
    texts = [row["prompt"][0]["content"] + " " + row["completion"][0]["content"] for row in demonstrations]
    return texts + [row["text"] for row in files["diary"]]


def split_phrasings(rng: random.Random) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Divide each animal's frames: every frame and every animal is trained on, the held-out couples never."""
    train, heldout = {}, {}
    for i, animal in enumerate(rng.sample(ANIMALS, len(ANIMALS))):
        ring = [(i * HELD_OUT_FRAMES + j) % len(FRAMES) for j in range(len(FRAMES))]
        heldout[animal], train[animal] = ring[:HELD_OUT_FRAMES], ring[HELD_OUT_FRAMES:]
    return train, heldout


def write_model(folder: Path, texts: list[str], seed: int) -> None:
    """Save a tokenizer trained on `texts` and a small Llama of random weights, as a plain transformers folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = train_tokenizer(texts)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def train_tokenizer(texts: list[str]) -> Any:
    """Train byte-level BPE, so that any text can be written, with the special tokens of a chat."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, BOS, END, USER, ASSISTANT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
