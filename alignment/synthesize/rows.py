"""Seeds that methods begin from, and the rows that they write."""

from dataclasses import dataclass
from typing import Any

from alignment.config.schema.synthesize import SynthesizeRecipe
from alignment.data import load_rows
from alignment.data.rows import Prompt
from alignment.errors import DataError, named_inputs

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Seed:
    """A prompt that a method begins from."""

    prompt: Prompt
    text: str  # the instruction alone where the row has one, else what the user writes last
    source: str  # file and line


@dataclass(frozen=True, slots=True)
class Seeds:
    """All seeds, and what the manifest keeps about their files."""

    seeds: list[Seed]
    files: dict[str, str]
    formats: dict[str, str]
    skipped: list[str]


def load_seeds(recipe: SynthesizeRecipe) -> Seeds:
    """Read the seeds of a recipe, equal texts once.

    Raises: DataError if there are too few, or a file cannot be read.
    """
    if not recipe.method.SEEDS:
        return Seeds([], {}, {}, [])
    with named_inputs(DataError):
        return _read(recipe)


def _read(recipe: SynthesizeRecipe) -> Seeds:
    loaded = load_rows(recipe)
    instructions = [row.get("instruction") for row in loaded.columns] or [None] * len(loaded.rows)
    seeds: dict[str, Seed] = {}
    for prompt, source, instruction in zip(loaded.rows, loaded.sources, instructions, strict=True):
        text = instruction if isinstance(instruction, str) and instruction.strip() else _last_text(prompt)
        key = text if recipe.columns_read else repr(prompt)
        seeds.setdefault(key.strip(), Seed(prompt, text.strip(), source))
    found = [seed for seed in seeds.values() if seed.text]
    if not found:
        raise DataError(f"{recipe.datasets[0].path} holds no seed: no row has an instruction or a prompt with text.")
    least = recipe.method.least_seeds
    if len(found) < least:
        raise DataError(
            f"{recipe.datasets[0].path}: datasets hold {len(found)} different seeds, and a prompt of method "
            f"{recipe.method.kind} shows {least} until instructions are written; add seeds, or lower "
            "method.num_seed_examples."
        )
    return Seeds(found, loaded.files, loaded.formats, loaded.skipped)


def _last_text(prompt: Prompt) -> str:
    """Return a text prompt, or the user's last message."""
    if isinstance(prompt, str):
        return prompt
    return next((message["content"] for message in reversed(prompt) if message["role"] == "user"), "")


def instruction_row(instruction: str, extra: str, output: str, provenance: dict[str, Any]) -> Row:
    """Return a row in the Alpaca layout."""
    return {"instruction": instruction, "input": extra, "output": output, "provenance": provenance}
