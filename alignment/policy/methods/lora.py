"""LoRA and DoRA: PEFT's `LoraConfig`.

PEFT acts on some keys of a saved configuration while it builds the adapter: it imports the module that `megatron_core`
names and opens the files of `corda_config`. Such keys are refused.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from peft import LoraConfig

from alignment.config.schema import AdapterKeys
from alignment.policy.methods.values import (
    LARGEST_RANK,
    are_layers,
    are_names,
    are_names_or_pattern,
    are_tokens,
    by_pattern,
    is_flag,
    is_number,
    is_rank,
    is_share,
    is_text,
)
from alignment.policy.model_files import Fault
from alignment.strict_json import shown

PEFT_TYPE, PREFIX = "LORA", "lora_"
STARTS = re.compile(r"true|false|gaussian|eva|olora|orthogonal|loftq|pissa(_niter_\d{1,3})?")
# What PEFT reads while it builds an adapter, and no saved adapter needs: modules, files, statistics of the base.
BUILDING = ("megatron_config", "corda_config", "lora_ga_config", "arrow_config", "layer_replication", "velora_config",
            "monteclora_config", "use_bdlora", "kasa_config")  # fmt: skip
FLAGS = ("fan_in_fan_out", "use_rslora", "use_dora", "lora_bias", "inference_mode", "use_qalora", "ensure_weight_tying")


def new_config(keys: AdapterKeys, *, task: str, modules_to_save: list[str] | None) -> LoraConfig:
    """Return the configuration of a new adapter."""
    given = {**keys.fields(), "modules_to_save": modules_to_save}
    return LoraConfig(task_type=task, use_dora=keys.peft_method == "dora", **given)


def recipe_keys(config: LoraConfig) -> dict[str, Any]:
    """Return the recipe keys that an existing adapter determines."""
    return {
        "peft_method": "dora" if config.use_dora else "lora",
        "lora_r": config.r,
        "lora_alpha": config.lora_alpha,
        "use_rslora": config.use_rslora,
    }


def faults(found: dict[str, Any]) -> Iterator[Fault]:
    """Yield the keys of a saved configuration that PEFT must not act on, or that have impossible values."""
    for key in BUILDING:
        if found.get(key):
            yield key, f"is {shown(found[key])}; a saved adapter may not decide that. Take the key out"
    for key, (is_right, rule) in KEYS.items():
        if key in found and not is_right(found[key]):
            yield key, f"is {shown(found[key])}; it must be {rule}"


def _is_start(value: Any) -> bool:
    return isinstance(value, bool | str) and STARTS.fullmatch(str(value).lower()) is not None


def _is_loftq(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and 0 < value.get("loftq_iter", 1) <= 100)


KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "r": (is_rank, f"a rank from 1 to {LARGEST_RANK}"),
    "lora_alpha": (is_number, "a number other than 0"),
    "lora_dropout": (is_share, "a number from 0 to less than 1"),
    "target_modules": (are_names_or_pattern, "a list of modules' names or a pattern"),
    "exclude_modules": (are_names_or_pattern, "a list of modules' names or a pattern"),
    "modules_to_save": (are_names, "a list of modules' names"),
    "target_parameters": (are_names, "a list of parameters' names"),
    "layers_to_transform": (are_layers, "a layer's number or a list of them"),
    "layers_pattern": (lambda value: are_names([value] if isinstance(value, str) else value), "a name or a list"),
    "rank_pattern": (by_pattern(is_rank), "an object of ranks by modules' names"),
    "alpha_pattern": (by_pattern(is_number), "an object of numbers by modules' names"),
    "trainable_token_indices": (are_tokens, "a list of tokens' ids, or an object of such lists"),
    "alora_invocation_tokens": (are_tokens, "a list of tokens' ids"),
    "bias": (lambda value: value in ("none", "all", "lora_only"), "none, all or lora_only"),
    "init_lora_weights": (_is_start, "true, false, gaussian, eva, olora, orthogonal, loftq or pissa"),
    "loftq_config": (_is_loftq, "an object with at most 100 iterations"),
    "base_model_name_or_path": (is_text, "a text"),
    "revision": (is_text, "a text"),
    **dict.fromkeys(FLAGS, (is_flag, "true or false")),
}
