"""Tuning methods: a module for each family of PEFT's adapters that the project builds, reads and continues.

`alignment.config.methods` lists the methods and their facts. A family's module has

- `PEFT_TYPE`: the type in adapter_config.json;
- `PREFIX`: how the names of the adapter's parameters begin;
- `new_config(keys, task=..., modules_to_save=...)`: PEFT's configuration of a new adapter;
- `recipe_keys(config)`: the recipe keys that an existing adapter determines, with their values;
- `faults(found)`: what is wrong with the keys of an adapter_config.json that somebody else may have written.
"""

import importlib
import itertools
from typing import Any

from peft import PeftConfig

from alignment.config.methods import TUNING_METHODS, TuningMethod
from alignment.config.schema import AdapterKeys

HEADS: dict[str, list[str]] = {"CAUSAL_LM": [], "SEQ_CLS": ["score"]}  # modules that a task trains beside the adapter


def families() -> list[Any]:
    """Return the modules of all families, each once."""
    names = dict.fromkeys(method.family for method in TUNING_METHODS.values() if method.family)
    return [importlib.import_module(f"{__name__}.{name}") for name in names]


def family_of(peft_type: str) -> Any | None:
    """Return the module of the family with a type of PEFT; None if no method builds it."""
    return next((family for family in families() if peft_type == family.PEFT_TYPE), None)


def method_of(config: PeftConfig) -> TuningMethod:
    """Return the tuning method of an existing adapter."""
    family = family_of(config.peft_type)
    assert family is not None, config.peft_type
    return TUNING_METHODS[family.recipe_keys(config)["peft_method"]]


def adapter_config(keys: AdapterKeys, *, task: str) -> PeftConfig:
    """Return PEFT's configuration of a new adapter; `task` is CAUSAL_LM or SEQ_CLS."""
    family = importlib.import_module(f"{__name__}.{keys.method.family}")
    config: PeftConfig = family.new_config(
        keys, task=task, modules_to_save=[*(keys.lora_modules_to_save or []), *HEADS[task]] or None
    )
    return config


def is_of_adapter(parameter: str) -> bool:
    """Whether a parameter's name is that of an adapter's own weight, of any family."""
    return any(part.startswith(family.PREFIX) for family in families() for part in parameter.split("."))


def belongs_to(parameter: str, adapter: str | None) -> bool:
    """Whether a parameter is part of the adapter with a name, which PEFT puts after `lora_A`, `modules_to_save`, ..."""
    stores = (*(family.PREFIX for family in families()), "modules_to_save")
    return any(a.startswith(stores) and b == adapter for a, b in itertools.pairwise(parameter.split(".")))
