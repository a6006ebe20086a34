"""Tries the patterns of an adapter's configuration within a time limit, before PEFT matches them without one."""

from collections.abc import Sequence
from typing import Any

from alignment.config.rules.patterns import WHOLE_LAYERS, fault_of_patterns
from alignment.errors import ModelError

FIELDS = ("target_modules", "exclude_modules", "feedforward_modules", "modules_to_save")
BY_MODULE = ("rank_pattern", "alpha_pattern", "lambda_pattern", "n_frequency_pattern", "block_size_pattern")


def require_patterns(config: Any, names: Sequence[str], where: str) -> None:
    """Refuse an adapter's configuration with an invalid pattern, or one that takes too long on the modules' names.

    Args:
        config: PEFT's. names: of all modules of the base. where: begins the message.

    Raises: ModelError.
    """
    given = [getattr(config, key, None) for key in FIELDS]
    targets = [each for each in given if isinstance(each, str) and each not in WHOLE_LAYERS]
    patterns = [getattr(config, key, None) or {} for key in BY_MODULE]
    ranks = [rf"(.*\.)?({key})$" for by_module in patterns for key in by_module]
    fault = fault_of_patterns([*targets, *ranks], names)
    if fault is not None:
        raise ModelError(f"{where}: {fault}.")
