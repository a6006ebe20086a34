"""Writes everything the arithmetic recipe starts from: demonstrations, prompts with answers, and a model.

    python -m recipes.arithmetic.generate --output_dir runs/arithmetic/data --seed 0

A prompt is a sum ("47+85="), a demonstration adds digit by digit from the right ("7+5=12 4+8+1=13 #### 132"). Six of
ten demonstrations are careless: they forget the carry. No sum, in either order, is in two of the three files.
The model reads bytes. The same seed writes the same bytes.
"""

import argparse
import random
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from alignment.json_lines import lines_of
from alignment.run.files import write_atomic
from recipes.tiny.generate import write_model

DIGITS = 2
CARELESS = 0.6  # share of the demonstrations that forget the carry


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many rows each file gets."""

    demonstrations: int = 2400
    train_prompts: int = 1000
    heldout_prompts: int = 500


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and write the folder."""
    parser = argparse.ArgumentParser(prog="python -m recipes.arithmetic.generate", description=__doc__)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    for field in fields(Sizes):
        parser.add_argument(f"--{field.name}", type=int, default=field.default)
    arguments = parser.parse_args(argv)
    sizes = Sizes(**{field.name: getattr(arguments, field.name) for field in fields(Sizes)})
    write_data(arguments.output_dir, sizes, arguments.seed)
    write_model(arguments.output_dir / "model", [], arguments.seed)  # no text to merge: every token is one byte


def write_data(output_dir: Path, sizes: Sizes, seed: int) -> None:
    """Write demonstrations, and prompts with the column `answer` for training and for evaluation."""
    rng = random.Random(seed)
    sums = draw_sums(rng, sizes.demonstrations + sizes.train_prompts + sizes.heldout_prompts)
    shown, rest = sums[: sizes.demonstrations], sums[sizes.demonstrations :]
    demonstrations = [
        {"prompt": [{"role": "user", "content": asked(*each)}], "completion": [answered(*each, rng)]} for each in shown
    ]
    prompts = [{"prompt": [{"role": "user", "content": asked(a, b)}], "answer": str(a + b)} for a, b in rest]
    files = {
        "demonstrations": demonstrations,
        "prompts_train": prompts[: sizes.train_prompts],
        "prompts_heldout": prompts[sizes.train_prompts :],
    }
    output_dir.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        write_atomic(output_dir / f"{name}.jsonl", lines_of(rows))


def draw_sums(rng: random.Random, count: int) -> list[tuple[int, int]]:
    """Return different pairs of numbers; the same two in the other order count as the same."""
    found: dict[tuple[int, int], tuple[int, int]] = {}
    while len(found) < count:
        a, b = (rng.randrange(10 ** (DIGITS - 1), 10**DIGITS) for _ in range(2))
        found.setdefault((min(a, b), max(a, b)), (a, b))
    return list(found.values())


def asked(a: int, b: int) -> str:
    """Return the prompt of a sum."""
    return f"{a}+{b}="


def answered(a: int, b: int, rng: random.Random) -> dict[str, Any]:
    """Return a demonstration, which is careless with probability `CARELESS`."""
    return {"role": "assistant", "content": worked(a, b, careful=rng.random() >= CARELESS)}


def worked(a: int, b: int, careful: bool) -> str:
    """Return the addition of two numbers of `DIGITS` digits, from the right; not careful: no carry is added."""
    steps, digits, carry = [], "", 0
    for place in range(DIGITS):
        first, second = a // 10**place % 10, b // 10**place % 10
        total = first + second + carry
        steps.append(f"{first}+{second}{f'+{carry}' if carry else ''}={total}")
        digits = f"{total % 10}{digits}" if place < DIGITS - 1 else f"{total}{digits}"
        carry = total // 10 if careful else 0
    return f"{' '.join(steps)} #### {digits}"


if __name__ == "__main__":
    main(sys.argv[1:])
