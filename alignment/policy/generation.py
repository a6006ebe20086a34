"""The generation config of a model's folder: the tokens at which plain `generate` stops, read and written."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignment.policy.model_files import GENERATION, is_there, read_object

# By which transformers takes the file for a copy of config.json.
COPIED = ("_from_model_config", "_original_object_hash", "_commit_hash")


def read_generation(*places: str | None, revision: str = "main") -> dict[str, Any]:
    """Return the generation config of the first folder or Hub id that has one; {} if none has."""
    for place in places:
        file = _file(place, revision) if place else None
        if file is not None:
            return read_object(file)
    return {}


def stops_of(generation: dict[str, Any]) -> list[int]:
    """Return the ids of `eos_token_id`, which may be a number or a list."""
    given = generation.get("eos_token_id")
    return [token for token in (given if isinstance(given, list) else [given]) if token is not None and token >= 0]


def stopping_at(stops: Sequence[int], generation: dict[str, Any]) -> dict[str, Any]:
    """Return a generation config with these stop tokens."""
    return {**{key: value for key, value in generation.items() if key not in COPIED}, "eos_token_id": list(stops)}


def write_generation(folder: Path, generation: dict[str, Any]) -> None:
    """Write a folder's generation config; what it holds already and `generation` does not name stays."""
    found = stopping_at((), read_generation(str(folder)))
    text = json.dumps({**found, **generation}, indent=2, sort_keys=True)
    (folder / GENERATION).write_text(text + "\n", encoding="utf-8")


def stop_at(model: Any, stops: Sequence[int]) -> None:
    """Have `generate` of this model, and of its checkpoints, stop at these tokens."""
    config = getattr(model, "generation_config", None)
    if config is not None:
        config.eos_token_id = list(stops)
        config._from_model_config = False


def _file(place: str, revision: str) -> Path | None:
    from transformers.utils import cached_file

    if Path(place).is_dir():
        file = Path(place) / GENERATION
        return file if is_there(file) else None
    try:
        found = cached_file(place, GENERATION, revision=revision, _raise_exceptions_for_missing_entries=False)
    except (OSError, ValueError):  # not in the cache, and not downloadable
        return None
    return Path(found) if found is not None else None
