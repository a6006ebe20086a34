"""Freeze: some layers train whole, the others are frozen.

The layers that train are copies beside the base, an adapter of PEFT's type `LN_TUNING` on their leaf modules: the base
stays as it is for other roles, only the trained layers are saved, and merging puts them in the base's place.
"""

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from peft import LNTuningConfig
from torch import nn

from alignment.config.own_methods import FreezeKeys
from alignment.config.schema import AdapterKeys
from alignment.errors import ModelError
from alignment.policy.layers import layer_stack
from alignment.policy.methods.generic import Generic
from alignment.policy.model_files import Fault

# peft 0.21 warns of each RMSNorm, whose sizes it does not need: it copies the module.
warnings.filterwarnings("ignore", message="Unsupported layer type", category=UserWarning)


PEFT_TYPE, PREFIX = "LN_TUNING", "ln_tuning_"


def new_config(keys: AdapterKeys, *, task: str, modules_to_save: list[str] | None) -> LNTuningConfig:
    """Return the configuration of a new adapter; the model decides which modules its layers have."""
    config = LNTuningConfig(task_type=task, modules_to_save=modules_to_save)
    config.complete = partial(_complete, FreezeKeys(**keys.fields()).trainable_layers)
    return config


def _complete(trainable_layers: int | list[str], config: LNTuningConfig, model: nn.Module) -> LNTuningConfig:
    config.target_modules = set(trained_modules(model, trainable_layers))
    return config


def recipe_keys(config: LNTuningConfig) -> dict[str, Any]:
    """Return the recipe keys that an existing adapter determines."""
    return {"peft_method": "freeze"}


def faults(found: dict[str, Any]) -> Iterator[Fault]:
    """Yield the keys of a saved configuration that have impossible values."""
    yield from Generic("ln_tuning").faults(found)


def trained_modules(model: nn.Module, trainable_layers: int | Sequence[str]) -> list[str]:
    """Return the full names of the modules with weights in the layers that train.

    Raises: ModelError if the model lacks a layer, or it cannot be copied.
    """
    if isinstance(trainable_layers, int):
        tops = _counted(model, trainable_layers)
    else:
        tops = [name for wanted in trainable_layers for name in _named(model, wanted)]
    found = dict.fromkeys(leaf for top in tops for leaf in _leaves(model, top))
    if not found:
        raise ModelError("trainable_layers names no layer; give a number of layers or names of modules.")
    _require_untied(model, list(found))
    return list(found)


def _counted(model: nn.Module, count: int) -> list[str]:
    stack, length = layer_stack(model)
    if not 0 < abs(count) <= length:
        raise ModelError(
            f"trainable_layers is {count}; the model has {length} layers: give 1 to {length} for its last layers, -1 "
            f"to -{length} for its first ones, or names of modules."
        )
    numbers = range(length - count, length) if count > 0 else range(-count)
    return [f"{stack}.{number}" for number in numbers]


def _named(model: nn.Module, wanted: str) -> list[str]:
    found = [name for name, _ in model.named_modules() if f".{name}".endswith(f".{wanted}") and wanted]
    if not found:
        kinds = [name for name, _ in model.named_children()]
        kinds += [f"{name}.{child}" for name, module in model.named_children() for child, _ in module.named_children()]
        shown = wanted if len(wanted) <= 60 else f"{wanted[:57]}..."
        raise ModelError(
            f"trainable_layers: the model has no module {shown}; it has {', '.join(kinds[:12])}. Correct the name."
        )
    return found


def _leaves(model: nn.Module, top: str) -> Iterator[str]:
    """Yield the modules below `top`, itself included, that own weights; the first on each path."""
    module = model.get_submodule(top)
    if next(module.parameters(recurse=False), None) is not None:
        yield top
        return
    for name, _ in module.named_children():
        yield from _leaves(model, f"{top}.{name}")


def _require_untied(model: nn.Module, names: list[str]) -> None:
    transformer: Any = model
    inner, outer = transformer.get_input_embeddings(), transformer.get_output_embeddings()
    tied = outer is not None and inner is not None and outer.weight is inner.weight
    for name in names:
        if tied and model.get_submodule(name) in (inner, outer):
            raise ModelError(
                f"trainable_layers: {name} shares its weight with the other end of the model (tie_word_embeddings), "
                "and would be untied. Leave it out, or use peft_method full."
            )
