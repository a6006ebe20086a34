"""Tuning methods: a module for each family of adapters that the project builds, reads and continues.

`alignment.config.methods` lists the methods and their facts; types of PEFT without a module here are built by
`generic`. A family's module has

- `PEFT_TYPE`: the type in adapter_config.json;
- `PREFIX`: how the names of the adapter's parameters begin;
- `new_config(keys, task=..., modules_to_save=...)`: PEFT's configuration of a new adapter; `keys.fields()` returns the
  recipe's values by field;
- `recipe_keys(config)`: the recipe keys that an existing adapter determines, with their values; `peft_method` always;
- `faults(found)`: what is wrong with the keys of an adapter_config.json that somebody else may have written. Nothing in
  the file may choose code, files or addresses.

A module of several types of PEFT defines `family(name)` instead, which returns an object with these.
A configuration of `new_config` that depends on the model, such as the names of its last layers, has a function
`complete(config, model)` as an attribute, which returns the whole configuration.

It may also define

- `TYPES`: all types in adapter_config.json that its methods continue, where they are several or another family's too;
- `choose_weights(model, keys, losses)`: called once with the losses of training examples, before a new adapter trains;
- `callbacks(model, keys)`: callbacks of the trainer, for each stage that trains. A `MethodCallback` also holds state
  that each checkpoint saves, and may change the files of the trained adapter.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

from alignment.config.methods import TUNING_METHODS, TuningMethod
from alignment.config.schema import AdapterKeys
from alignment.config.tasks import AUTO_CLASSES, CLASSIFIER
from alignment.policy.methods.generic import Generic
from alignment.policy.targets import count_from_the_top

HEADS: dict[str, list[str]] = {
    task: ["score"] if task == CLASSIFIER else [] for task in AUTO_CLASSES
}  # trained in full
LAYERS = ("layers_to_transform", "layers_pattern")
GENERIC = "generic"


def family(name: str) -> Any | None:
    """Return the family of a tuning method; None if it adds nothing to the model."""
    module = TUNING_METHODS[name].family
    if module is None:
        return None
    if module == GENERIC:
        return Generic(name)
    found = importlib.import_module(f"{__name__}.{module}")
    return found.family(name) if hasattr(found, "family") else found


def families() -> list[Any]:
    """Return all families, each once; modules of our own come first, since they take precedence for their type."""
    names = sorted(TUNING_METHODS, key=lambda name: TUNING_METHODS[name].family == GENERIC)
    found = (family(name) for name in names)
    return list(dict.fromkeys(each for each in found if each is not None))


def family_of(peft_type: str) -> Any | None:
    """Return the family with a type of PEFT; None if no method builds it."""
    return next((each for each in families() if peft_type == each.PEFT_TYPE), None)


def method_of(config: PeftConfig) -> TuningMethod:
    """Return the tuning method of an existing adapter."""
    found = family_of(config.peft_type)
    assert found is not None, config.peft_type
    return TUNING_METHODS[found.recipe_keys(config)["peft_method"]]


def adapter_config(keys: AdapterKeys, *, task: str) -> PeftConfig:
    """Return PEFT's configuration of a new adapter; `task` is one of `alignment.config.tasks`."""
    found = family(keys.peft_method)
    assert found is not None, keys.peft_method
    whole = [*(keys.fields().get("modules_to_save") or []), *HEADS[task]]
    layers = {key: value for key, value in keys.peft_config.items() if key in LAYERS}
    others = {key: value for key, value in keys.peft_config.items() if key not in LAYERS}
    config: PeftConfig = found.new_config(
        keys.model_copy(update={"peft_config": others}), task=task, modules_to_save=whole or None
    )
    for key, value in layers.items():  # PEFT refuses them beside a text of targets, which `expand_targets` lists
        setattr(config, key, value)
    if keys.lora_layers is not None and hasattr(config, LAYERS[0]):
        config.layers_to_transform = list(range(-keys.lora_layers, 0))  # `completed` counts them from the top
    return config


def completed(config: PeftConfig, model: Any) -> PeftConfig:
    """Return a configuration with what depends on the model; `model` is the base, without adapters."""
    count_from_the_top(model, config)
    complete = getattr(config, "complete", None)
    found: PeftConfig = config if complete is None else complete(config, model)
    return found


def reading_family(keys: AdapterKeys, peft_type: str) -> Any | None:
    """Return the family that reads an adapter to continue it: the recipe's, if it has the type, else the type's own."""
    own = family(keys.peft_method)
    types = () if own is None else getattr(own, "TYPES", (own.PEFT_TYPE,))
    return own if peft_type in types else family_of(peft_type)


def optional(keys: AdapterKeys, name: str) -> Callable[..., Any] | None:
    """Return an optional function of the family of a recipe's method; None if it has none."""
    steps = TUNING_METHODS[keys.peft_method].steps
    module = importlib.import_module(f"{__name__}.{steps}") if steps else family(keys.peft_method)
    found: Callable[..., Any] | None = getattr(module, name, None)
    return found


def is_of_adapter(parameter: str) -> bool:
    """Whether a parameter's name is that of an adapter's own weight, of any family."""
    return any(part.startswith(_prefixes()) for part in parameter.split("."))


@functools.cache
def _prefixes() -> tuple[str, ...]:
    """Return how the names of adapters' parameters begin, for every type of PEFT, registered ones of our own too."""
    own = (each.PREFIX for each in families())
    return tuple(dict.fromkeys([*own, *PEFT_TYPE_TO_PREFIX_MAPPING.values(), "ranknum", "soft_prompts"]))
