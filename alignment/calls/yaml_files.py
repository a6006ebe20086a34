"""YAML files of a judge's entry."""

from typing import Any

from alignment.config import documents
from alignment.errors import JudgeError, RecipeError


def read_yaml(path: str, key: str) -> tuple[bytes, Any]:
    """Return the bytes and the value of a file.

    Args:
        key: of the recipe, for messages.

    Raises: JudgeError if it cannot be read or is not YAML.
    """
    try:
        return documents.read_yaml(path)
    except RecipeError as error:
        raise JudgeError(f"{key} {error}") from None
