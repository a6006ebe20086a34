"""Any type of PEFT that `alignment.config.peft_types` lists: its configuration, built from `peft_config`.

A saved configuration decides nothing: it may hold the fields of the type's class alone, with values of their types and
within bounds; fields that name files or modules must be empty.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from peft import PeftConfig, PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING

from alignment.config.library import Kind, trainer_keys
from alignment.config.methods import TUNING_METHODS
from alignment.config.peft_fields import OWNED, WITHHELD
from alignment.config.schema import AdapterKeys
from alignment.policy.methods.values import LARGEST_RANK, MOST_NAMES, NAME, are_layers, are_names_or_pattern
from alignment.policy.model_files import Fault
from alignment.strict_json import shown

PATTERNS = ("target_modules", "exclude_modules", "feedforward_modules", "modules_to_save")
FREE_NUMBERS = re.compile(r"\w*(seed|key|step)s?|random_loc_seed")  # that size nothing
LARGEST_SIZE, LARGEST_NUMBER = 2**20, 2**63


@dataclass(frozen=True, slots=True)
class Generic:
    """The family of one type of PEFT."""

    name: str  # of its tuning method
    config: str | None = None  # PEFT's class, as "package.module:Class"; None: the method's

    @property
    def PEFT_TYPE(self) -> str:  # as modules of families have it
        """The type in adapter_config.json."""
        return self.name.upper()

    @property
    def PREFIX(self) -> str:
        """How the names of the adapter's parameters begin."""
        prefix: str = PEFT_TYPE_TO_PREFIX_MAPPING[PeftType(self.PEFT_TYPE)]
        return prefix

    def new_config(self, keys: AdapterKeys, *, task: str, modules_to_save: list[str] | None) -> PeftConfig:
        """Return the configuration of a new adapter."""
        cls = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(self.PEFT_TYPE)]
        given = {**keys.fields(), "modules_to_save": modules_to_save}
        config: PeftConfig = cls(task_type=task, **given)
        return config

    def recipe_keys(self, config: PeftConfig) -> dict[str, Any]:
        """Return the recipe keys that an existing adapter determines."""
        return {"peft_method": self.name}

    def faults(self, found: dict[str, Any]) -> Iterator[Fault]:
        """Yield the keys of a saved configuration that PEFT must not act on, or that have impossible values."""
        fields = trainer_keys(self.config or TUNING_METHODS[self.name].config)
        for key, value in found.items():
            if key not in fields:
                yield (
                    key,
                    f"is not a field of a configuration of peft_type {self.PEFT_TYPE}; put the adapter's own file back",
                )
            elif key in OWNED:
                if not (value is None or isinstance(value, bool | str | dict)):
                    yield key, f"is {shown(value)}; put the adapter's own file back"
            elif key in WITHHELD and value not in WITHHELD[key][0]:
                yield key, f"is {shown(value)}, which a saved adapter may not decide: {WITHHELD[key][1]}"
            elif told := _wrong(key, value, fields[key]):
                yield key, f"is {shown(value)}; it must be {told}"


def _wrong(key: str, value: Any, kind: Kind) -> str | None:
    """Return what a value must be; None if it is valid."""
    if key in PATTERNS:
        return None if are_names_or_pattern(value) else "a list of modules' names or a pattern"
    if key == "layers_to_transform":
        return None if are_layers(value) else "a layer's number or a list of them"
    if not kind.accepts(value):
        return str(kind)
    return None if _is_small(key, value) else f"a number up to {LARGEST_SIZE}, or short texts and lists of such"


def _is_small(key: str, value: Any) -> bool:
    """Whether numbers are within bounds and texts are short, in lists and objects too."""
    if isinstance(value, str):
        return NAME.fullmatch(value) is not None
    if isinstance(value, list | dict):
        inner = value.values() if isinstance(value, dict) else value
        names = value if isinstance(value, dict) else ()
        flat = all(not isinstance(each, list | dict) and _is_small(key, each) for each in inner)
        return len(value) <= MOST_NAMES and flat and all(0 < len(name) <= 300 for name in names)
    if value is None or isinstance(value, bool):
        return True
    if FREE_NUMBERS.fullmatch(key):
        return abs(value) < LARGEST_NUMBER
    if key == "r":
        return 0 <= value <= LARGEST_RANK
    return abs(value) <= LARGEST_SIZE if isinstance(value, int) else abs(value) < 1e9
