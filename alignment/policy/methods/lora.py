"""LoRA and DoRA: PEFT's `LoraConfig`.

PEFT acts on some keys of a saved configuration while it builds the adapter: it imports the module that `megatron_core`
names and opens the files of `corda_config`. Such keys are refused.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from peft import LoraConfig

from alignment.config.schema import AdapterKeys
from alignment.policy.model_files import Fault
from alignment.strict_json import shown

PEFT_TYPE, PREFIX = "LORA", "lora_"
LARGEST_RANK = 65_536
MOST_NAMES = 10_000
NAME = re.compile(r"[\w.-]{1,300}")
STARTS = re.compile(r"true|false|gaussian|eva|olora|orthogonal|loftq|pissa(_niter_\d{1,3})?")
# What PEFT reads while it builds an adapter, and no saved adapter needs: modules, files, statistics of the base.
BUILDING = ("megatron_config", "corda_config", "lora_ga_config", "arrow_config", "layer_replication", "velora_config",
            "monteclora_config", "use_bdlora", "kasa_config")  # fmt: skip
FLAGS = ("fan_in_fan_out", "use_rslora", "use_dora", "lora_bias", "inference_mode", "use_qalora", "ensure_weight_tying")


def new_config(keys: AdapterKeys, *, task: str, modules_to_save: list[str] | None) -> LoraConfig:
    """Return the configuration of a new adapter."""
    return LoraConfig(
        task_type=task,
        r=keys.lora_r,
        lora_alpha=keys.lora_alpha,
        lora_dropout=keys.lora_dropout,
        target_modules=keys.lora_target_modules,
        modules_to_save=modules_to_save,
        use_rslora=keys.use_rslora,
        use_dora=keys.peft_method == "dora",
    )


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


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_rank(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST_RANK


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < abs(value) < 1e9


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


def _is_text(value: Any) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= 4096)


def _are_names(value: Any) -> bool:
    return value is None or (
        isinstance(value, list)
        and len(value) <= MOST_NAMES
        and all(isinstance(n, str) and NAME.fullmatch(n) for n in value)
    )


def _are_names_or_pattern(value: Any) -> bool:
    return (isinstance(value, str) and 0 < len(value) <= 4096) or _are_names(value)


def _are_layers(value: Any) -> bool:
    numbers = value if isinstance(value, list) else [value]
    return value is None or (
        len(numbers) <= MOST_NAMES
        and all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1e6 for n in numbers)
    )


def _by_pattern(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        value is None
        or (
            isinstance(value, dict)
            and len(value) <= MOST_NAMES
            and all(0 < len(key) <= 300 and is_right(one) for key, one in value.items())
        )
    )


def _are_tokens(value: Any) -> bool:
    lists = list(value.values()) if isinstance(value, dict) else [value]
    return value is None or all(
        isinstance(ids, list) and all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < 2**31 for i in ids)
        for ids in lists
    )


def _is_start(value: Any) -> bool:
    return isinstance(value, bool | str) and STARTS.fullmatch(str(value).lower()) is not None


def _is_loftq(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and 0 < value.get("loftq_iter", 1) <= 100)


KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "r": (_is_rank, f"a rank from 1 to {LARGEST_RANK}"),
    "lora_alpha": (_is_number, "a number other than 0"),
    "lora_dropout": (_is_share, "a number from 0 to less than 1"),
    "target_modules": (_are_names_or_pattern, "a list of modules' names or a pattern"),
    "exclude_modules": (_are_names_or_pattern, "a list of modules' names or a pattern"),
    "modules_to_save": (_are_names, "a list of modules' names"),
    "target_parameters": (_are_names, "a list of parameters' names"),
    "layers_to_transform": (_are_layers, "a layer's number or a list of them"),
    "layers_pattern": (lambda value: _are_names([value] if isinstance(value, str) else value), "a name or a list"),
    "rank_pattern": (_by_pattern(_is_rank), "an object of ranks by modules' names"),
    "alpha_pattern": (_by_pattern(_is_number), "an object of numbers by modules' names"),
    "trainable_token_indices": (_are_tokens, "a list of tokens' ids, or an object of such lists"),
    "alora_invocation_tokens": (_are_tokens, "a list of tokens' ids"),
    "bias": (lambda value: value in ("none", "all", "lora_only"), "none, all or lora_only"),
    "init_lora_weights": (_is_start, "true, false, gaussian, eva, olora, orthogonal, loftq or pissa"),
    "loftq_config": (_is_loftq, "an object with at most 100 iterations"),
    "base_model_name_or_path": (_is_text, "a text"),
    "revision": (_is_text, "a text"),
    **dict.fromkeys(FLAGS, (_is_flag, "true or false")),
}
