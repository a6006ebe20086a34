"""Held-out prompts."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from alignment.data.rows import Demonstration, Prompt, Ranking, Unpaired
from alignment.data.source_rows import Loaded
from alignment.errors import DataError
from alignment.meter import say_once

if TYPE_CHECKING:
    from alignment.config.schema import DataKeys

T = TypeVar("T", Demonstration, Unpaired, Ranking, Prompt)


@dataclass
class Split(Generic[T]):
    """Training and held-out rows, and what the manifest keeps about both."""

    train: list[T]
    held_out: list[T]
    files: dict[str, str]
    skipped: list[str]
    formats: dict[str, str] = field(default_factory=dict)  # file → layout


def load_split(load: Callable[..., Loaded[T]], keys: "DataKeys", seed: int) -> Split[T]:
    """Load a recipe's training rows, and its `eval_datasets` or the held-out share of `datasets`."""
    options: dict[str, Any] = {"on_bad_row": keys.on_bad_row, "seed": seed}
    loaded = load(keys.datasets, max_samples=keys.max_samples, **options)
    split = Split(loaded.rows, [], loaded.files, loaded.skipped, loaded.formats)
    if keys.eval_datasets:
        evaluation = load(keys.eval_datasets, max_samples=keys.max_eval_samples, **options)
        split.held_out = evaluation.rows
        split.files, split.skipped = split.files | evaluation.files, split.skipped + evaluation.skipped
        split.formats = split.formats | evaluation.formats
    elif keys.test_split_size:
        split.train, held_out = split_by_prompt(loaded.rows, keys.test_split_size, seed)
        split.held_out = held_out[: keys.max_eval_samples]
    return split


def split_by_prompt(rows: Sequence[T], test_size: float, seed: int) -> tuple[list[T], list[T]]:
    """Split by prompt, so that no prompt stands on both sides.

    A prompt's side depends on its text and the seed alone: stages that read different parts of one data set, in any
    order, hold out the same prompts. About `test_size` of the prompts are held out, and never none or all.

    Returns: train and test, each in the order of `rows`. Raises: DataError if there are fewer than two prompts.
    """
    places = [place_of(prompt_key(row), seed) for row in rows]
    ordered = sorted(set(places))
    if len(ordered) < 2:
        raise DataError(
            f"test_split_size {test_size} cannot be held out: the {len(rows)} rows have {len(ordered)} distinct "
            "prompts, and a split needs at least 2. Give eval_datasets instead, or more data."
        )
    bound = min(max(test_size, ordered[0]), ordered[-2])
    count, share = sum(place <= bound for place in ordered), test_size * len(ordered)
    if count != max(1, round(share)) and not share / 2 <= count <= share * 3 / 2:
        found = f"{count} of {len(ordered)} prompts ({count / len(ordered):.0%})"
        say_once(
            f"test_split_size {test_size:g} holds out {found}. A hash of each prompt decides, so that all stages hold "
            "out the same prompts; another seed, a larger share or eval_datasets changes the number."
        )
    train = [row for row, place in zip(rows, places, strict=True) if place > bound]
    test = [row for row, place in zip(rows, places, strict=True) if place <= bound]
    return train, test


def prompt_key(row: Demonstration | Ranking | Prompt) -> str:
    """Return a key that two prompts share if they have the same roles and words, regardless of case and white space.

    Held-out splits, audits, replayed verdicts and clustered intervals use this key: texts are case-folded, runs of
    white space become one space, and a single message of the user equals its text. For a demonstration without a prompt
    the key is that of its text. `alignment mix` matches prompts exactly instead, because it writes them again.
    """
    prompt: Prompt = row if isinstance(row, str | list) else row.prompt
    if isinstance(row, Demonstration) and not prompt:
        prompt = row.completion
    if isinstance(prompt, str):
        return _folded(prompt)
    if len(prompt) == 1 and prompt[0]["role"] == "user":
        return _folded(prompt[0]["content"])
    return json.dumps([[message["role"], _folded(message["content"])] for message in prompt], ensure_ascii=False)


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


def place_of(key: str, seed: int) -> float:
    """Return a number from 0 to 1 that a key and the seed decide."""
    digest = hashlib.sha256(f"{seed}\0{key}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
