"""How a run held its model while it trained: the few facts of its recipe that a later load repeats."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import yaml

from alignment.config.schema import ModelKeys
from alignment.errors import ModelError

RECORDS = ("manifest.json", "recipe.yaml")  # where a run keeps its recipe; the first that is there counts
MOST_BYTES = {"manifest.json": 64 << 20, "recipe.yaml": 256 << 10}
LONGEST = 200  # characters of a token or a revision
REVISION_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/")


def held_as_trained(folder: Path | str) -> dict[str, Any]:
    """Return the keys of `ModelKeys` that change what a trained model computes, as its run recorded them.

    Only facts about numbers and tokens are taken: precision, quantisation, the base's revision and the token that ends
    an answer. Keys that choose what code runs or which file is read (`trust_remote_code`, `attn_implementation`,
    `chat_template`) are the user's to give: what a run's folder records of them is not read.

    Returns: {} for a folder without a record, or a Hub id.
    Raises: ModelError where the record cannot be read, or a value is none that the key can have.
    """
    file = next((Path(folder, name) for name in RECORDS if Path(folder, name).is_file()), None)
    if file is None:
        return {}
    recipe = _recorded(file)
    kept = {key: recipe[key] for key in _ALLOWED if recipe.get(key) is not None}
    for key, value in kept.items():
        if not _ALLOWED[key](value):
            raise ModelError(
                f"{file}: {key} is {str(value)[:60]!r}, which no run records; put the run's own file back."
            )
    return kept


def _recorded(file: Path) -> dict[str, Any]:
    """Read the recipe that a manifest or a recipe.yaml holds; {} where it holds none."""
    if file.stat().st_size > MOST_BYTES[file.name]:
        raise ModelError(f"{file} has {file.stat().st_size} bytes, more than any run writes; put its own file back.")
    try:
        text = file.read_text(encoding="utf-8")
        found = json.loads(text).get("recipe") if file.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, AttributeError, RecursionError, yaml.YAMLError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{file} cannot be read: {reason[:200]}; put the run's own file back.") from None
    return found if isinstance(found, dict) else {}


def _one_of(key: str) -> Callable[[Any], bool]:
    values = get_args(ModelKeys.model_fields[key].annotation)
    return lambda value: isinstance(value, str) and value in values


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_token(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST


def _is_revision(value: Any) -> bool:
    return _is_token(value) and set(value) <= REVISION_CHARACTERS


_ALLOWED: dict[str, Callable[[Any], bool]] = {
    "dtype": _one_of("dtype"),
    "load_in_4bit": _is_bool,
    "bnb_4bit_quant_type": _one_of("bnb_4bit_quant_type"),
    "use_bnb_nested_quant": _is_bool,
    "eos_token": _is_token,
    "model_revision": _is_revision,
}
