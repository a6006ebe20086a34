"""Checks that an adapter's configuration names modules of the model."""

import re
from collections.abc import Collection
from typing import Any

from alignment.config.rules.patterns import WHOLE_LAYERS
from alignment.errors import ModelError

SHOWN = 12  # names that a message lists


def require_modules(model: Any, config: Any) -> None:
    """Refuse names that no module has: PEFT accepts them if one name is found, and in `modules_to_save` always.

    Raises: ModelError that names them and the modules that there are.
    """
    names = [name for name, _ in model.named_modules() if name]
    if isinstance(config.target_modules, str):
        _require_match(names, config.target_modules)
    elif config.target_modules:
        _require(names, config.target_modules, "lora_target_modules")
    _require(names, [name for name in config.modules_to_save or [] if name != "score"], "lora_modules_to_save")


def _require_match(names: list[str], pattern: str) -> None:
    """Refuse a regular expression that matches no module; `require_patterns` has limited its running time."""
    if pattern.lower() in WHOLE_LAYERS or any(re.fullmatch(pattern, name) for name in names):
        return
    longest = max(names, key=lambda name: name.count("."), default="")
    listed = f"; to name modules by their last part, write a list: [{pattern}]" if pattern.isidentifier() else ""
    raise ModelError(
        f"lora_target_modules: the regular expression {pattern} matches none of the model's modules. It is matched "
        f"against whole names, {longest} for one{listed}"
    )


def _require(names: list[str], wanted: Collection[str], key: str) -> None:
    """Refuse unknown names, ignoring layer numbers: the model of a plan has fewer layers."""
    known = {_unnumbered(name) for name in names}
    ends = known | {name[place + 1 :] for name in known for place, letter in enumerate(name) if letter == "."}
    absent = sorted(name for name in wanted if _unnumbered(name) not in ends)
    if absent:
        kinds = sorted({name.rpartition(".")[2] for name in names if not name.rpartition(".")[2].isdecimal()})
        more = ", ..." if len(kinds) > SHOWN else ""
        raise ModelError(
            f"{key}: the model has no module {', '.join(absent)}; it has {', '.join(kinds[:SHOWN])}{more}. Take the "
            "name out, or correct it."
        )


def _unnumbered(name: str) -> str:
    return re.sub(r"(?<![^.])[0-9]+(?![^.])", "N", name)
