"""YAML files that a judge's entry names."""

from typing import Any

from alignment.config import documents
from alignment.errors import JudgeError, RecipeError


def read_yaml(path: str, key: str) -> tuple[bytes, Any]:
    """Read a file; its bytes and what they say.

    Args:
        key: of the recipe, for messages.

    Raises: JudgeError where it cannot be read or is no YAML.
    """
    try:
        return documents.read_yaml(path)
    except RecipeError as error:
        raise JudgeError(f"{key} {error}") from None
