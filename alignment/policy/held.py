"""How a run held its model while it trained: the few facts of its recipe that a later load repeats."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from alignment.config.documents import read_yaml
from alignment.config.schema import ModelKeys
from alignment.errors import ModelError
from alignment.manifest import MANIFEST, read_manifest
from alignment.strict_json import shown

RECIPE = "recipe.yaml"  # where a run keeps its recipe beside the manifest
LONGEST = 200  # characters of a token or a revision
REVISION_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/")


def held_as_trained(folder: Path | str) -> dict[str, Any]:
    """Return the keys of `ModelKeys` that change what a trained model computes, as its run recorded them.

    Only facts about numbers and tokens are taken: precision, quantisation, the base's revision and the token that ends
    an answer. Keys that choose what code runs or which file is read (`trust_remote_code`, `attn_implementation`,
    `chat_template`) are the user's to give: what a run's folder records of them is not read.

    Returns: {} for a folder without a record, or a Hub id.
    Raises: AlignmentError if the record cannot be read; ModelError if a value is none that the key can have.
    """
    recipe = _recorded(Path(folder))
    kept = {key: recipe[key] for key in _ALLOWED if recipe.get(key) is not None}
    for key, value in kept.items():
        if not _ALLOWED[key](value):
            raise ModelError(
                f"{folder}: {key} is {shown(value)} in the recipe that its run recorded, and can never have been; put "
                "the run's own file back."
            )
    return kept


def _recorded(folder: Path) -> dict[str, Any]:
    """Read the recipe in a run's manifest; if there is none, recipe.yaml."""
    if (folder / MANIFEST).is_file():
        return read_manifest(folder).get("recipe", {})
    found = read_yaml(str(folder / RECIPE))[1] if (folder / RECIPE).is_file() else {}
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
    "load_in_8bit": _is_bool,
    "bnb_4bit_quant_type": _one_of("bnb_4bit_quant_type"),
    "use_bnb_nested_quant": _is_bool,
    "eos_token": _is_token,
    "model_revision": _is_revision,
}
