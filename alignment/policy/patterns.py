"""The patterns of an adapter's configuration, tried within a time limit before PEFT matches them without one."""

from collections.abc import Sequence
from typing import Any

from alignment.config.rules.patterns import WHOLE_LAYERS, fault_of_patterns
from alignment.errors import ModelError


def require_patterns(config: Any, names: Sequence[str], where: str) -> None:
    """Refuse an adapter configuration with a pattern that is none, or takes too long on the modules' names.

    Args:
        config: PEFT's LoraConfig. names: of all modules of the base. where: begins the message.

    Raises: ModelError.
    """
    targets = [given for given in (config.target_modules, config.exclude_modules) if isinstance(given, str)]
    ranks = [rf"(.*\.)?({key})$" for key in [*(config.rank_pattern or {}), *(config.alpha_pattern or {})]]
    fault = fault_of_patterns([*(given for given in targets if given not in WHOLE_LAYERS), *ranks], names)
    if fault is not None:
        raise ModelError(f"{where}: {fault}.")
