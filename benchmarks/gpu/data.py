"""Rows of one length each: hexadecimal text of a fixed seed, whose bytes are tokens."""

import random
from dataclasses import dataclass
from pathlib import Path

from alignment.run.files import write_jsonl
from benchmarks.gpu.models import CHAT_TEMPLATE

MARKS = len("<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n") - len("<|im_start|><|im_end|><|im_start|>") + 3


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of a prompt with the template's own around it, and of an answer with its end."""

    prompt: int
    answer: int


def write_rows(folder: Path, lengths: Lengths, count: int) -> None:
    """Write demonstrations.jsonl, pairs.jsonl and prompts.jsonl."""
    assert "system" not in CHAT_TEMPLATE  # else MARKS is wrong
    source = random.Random(0)

    def text(tokens: int) -> str:
        return "".join(source.choice("0123456789abcdef") for _ in range(tokens))

    prompts = [text(lengths.prompt - MARKS) for _ in range(count)]
    rows = [(prompt, text(lengths.answer - 1), text(lengths.answer - 1)) for prompt in prompts]
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "demonstrations.jsonl", [{"prompt": p, "completion": good} for p, good, _ in rows])
    write_jsonl(folder / "pairs.jsonl", [{"prompt": p, "chosen": good, "rejected": bad} for p, good, bad in rows])
    write_jsonl(folder / "prompts.jsonl", [{"prompt": p} for p in prompts])
