"""The optional packages of verifiable rewards."""

import importlib
from typing import Any

from alignment.errors import ScorerError


def require(module: str, reward: str) -> Any:
    """Import a module of the extra `rewards`.

    Raises: ScorerError if its package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        raise ScorerError(
            f"the reward {reward} needs {missing.name}, which is in the extra rewards: "
            'pip install "alignment-stack[rewards]"'
        ) from None
