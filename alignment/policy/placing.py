"""Where a new adapter goes on a model, checked by the model's modules alone."""

from collections.abc import Collection
from typing import Any

from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
    TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
)
from torch import nn

from alignment.config.schema import AdapterKeys
from alignment.errors import ModelError
from alignment.policy.methods import adapter_config, completed
from alignment.policy.patterns import require_patterns
from alignment.policy.targets import SHOWN, require_modules

OF_NORMS, IA3 = "LN_TUNING", "IA3"  # types of PEFT; the first trains normalisation layers


def placed_config(model: Any, keys: AdapterKeys, *, task: str) -> tuple[Any, set[int]]:
    """Return the configuration of a new adapter for `model`, and the numbers of its layers, none if all are meant.

    Args:
        model: the base, without adapters; its weights are not read.

    Raises: ModelError if a name is that of no module, or PEFT has no default modules for this kind of model.
    """
    config = completed(adapter_config(keys, task=task), model)
    _require_default(model, config, keys.peft_method)
    require_patterns(config, module_names(model), "lora_target_modules")
    return config, require_modules(model, config)


def module_names(model: Any) -> list[str]:
    """Return the names that PEFT matches patterns against."""
    return [name for name, _ in model.named_modules()]


def _require_default(model: Any, config: Any, method: str) -> None:
    """Refuse a method without modules where PEFT has no default ones for the kind of model."""
    kind = model.config.model_type
    for field, known in _defaults(config.peft_type).items():
        if getattr(config, field, None) is None and kind not in known:
            named = {name.rpartition(".")[2]: module for name, module in model.named_modules()}
            norms = sorted(name for name, module in named.items() if type(module).__name__.endswith("Norm"))
            linear = sorted(name for name, module in named.items() if isinstance(module, nn.Linear))
            names = norms if config.peft_type == OF_NORMS else linear
            raise ModelError(
                f"peft_method {method}: PEFT has no default {field} for {type(model).__name__}; name some of "
                f"{', '.join(names[:SHOWN])} as peft_config: {{{field}: [...]}}."
            )


def _defaults(peft_type: str) -> dict[str, Collection[str]]:
    """Return the kinds of models for which PEFT has default modules, by the configuration's field."""
    if peft_type == IA3:
        return {
            "target_modules": TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
            "feedforward_modules": TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
        }
    known = getattr(PEFT_TYPE_TO_TUNER_MAPPING.get(peft_type), "target_module_mapping", None)
    return {"target_modules": known} if known else {}
