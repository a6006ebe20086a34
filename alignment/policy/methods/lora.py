"""LoRA and DoRA: PEFT's `LoraConfig`.

PEFT acts on some keys of a saved configuration while it builds the adapter: it imports the module that `megatron_core`
names and opens the files of `corda_config`. Such keys are refused.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from peft import EvaConfig, LoraConfig
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from torch import Tensor

from alignment.config.schema import AdapterKeys
from alignment.errors import TrainingError
from alignment.policy.methods.callback import MethodCallback
from alignment.policy.methods.plain import ADAPTER_FILE, WRAPPED, write_plain_lora
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
from alignment.policy.model_files import ADAPTER_CONFIG, Fault
from alignment.strict_json import shown

PEFT_TYPE, PREFIX = "LORA", "lora_"
CHANGES_BASE = re.compile(r"pissa(_niter_\d{1,3})?|olora")  # starts that PEFT takes out of the base
STARTS = re.compile(r"true|false|gaussian|eva|olora|orthogonal|loftq|pissa(_niter_\d{1,3})?")
# What PEFT reads while it builds an adapter, and no saved adapter needs: modules, files, statistics of the base.
BUILDING = ("megatron_config", "corda_config", "lora_ga_config", "arrow_config", "layer_replication", "velora_config",
            "monteclora_config", "use_bdlora", "kasa_config")  # fmt: skip
FLAGS = ("fan_in_fan_out", "use_rslora", "use_dora", "lora_bias", "inference_mode", "use_qalora", "ensure_weight_tying")


def new_config(keys: AdapterKeys, *, task: str, modules_to_save: list[str] | None) -> LoraConfig:
    """Return the configuration of a new adapter."""
    given = {**keys.fields(), "modules_to_save": modules_to_save}
    if given.get("init_lora_weights") == "eva":
        given["eva_config"] = EvaConfig(**(given.get("eva_config") or {}))
    return LoraConfig(task_type=task, use_dora=keys.peft_method == "dora", **given)


class LoraPlus(MethodCallback):
    """Trains the matrices B faster than A: LoRA+, https://arxiv.org/abs/2402.12354."""

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio

    def rate(self, parameter: str) -> float:
        """Return the ratio for B, and for the embeddings' B."""
        return self.ratio if {"lora_B", "lora_embedding_B"} & set(parameter.split(".")) else 1.0


class Residual(MethodCallback):
    """Saves an adapter that took its start out of the base as plain LoRA on the base as it was.

    PiSSA (https://arxiv.org/abs/2404.02948) and OLoRA (https://arxiv.org/abs/2406.01775) start with
    W = (W - s B₀A₀) + s B₀A₀ and train the last term. Trained, the increment of W is s BA - s B₀A₀, of twice the rank.
    """

    def __init__(self, model: Any, adapter: str) -> None:
        layers = [(n, m) for n, m in model.named_modules() if isinstance(m, LoraLayer) and adapter in m.lora_A]
        self.scales = {name: layer.scaling[adapter] for name, layer in layers}
        self.starts = {
            f"{name}.lora_{part}.weight": getattr(layer, f"lora_{part}")[adapter].weight.detach().clone()
            for name, layer in layers
            for part in "AB"
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return the start, which is what the base lacks."""
        return self.starts

    def restore_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Require the start that the checkpoint was trained from: the base was changed by it.

        Raises: TrainingError.
        """
        if any(not torch.equal(tensors[name], start.cpu()) for name, start in self.starts.items()):
            raise TrainingError(
                "the base's singular vectors differ from those that the run began with, as on another machine; train "
                "again, or set init_lora_weights: true"
            )

    def finish(self, folder: Path) -> None:
        """Write plain LoRA."""
        tensors = load_file(folder / ADAPTER_FILE)
        ranks: dict[str, int] = {}
        for name, scale in self.scales.items():
            down, up = (tensors[f"{name}.lora_{part}.weight"] for part in "AB")
            first_down, first_up = (self.starts[f"{name}.lora_{part}.weight"].cpu() for part in "AB")
            tensors[f"{name}.lora_A.weight"] = torch.cat([down, first_down.to(down.dtype)])
            tensors[f"{name}.lora_B.weight"] = torch.cat([up, -first_up.to(up.dtype)], dim=1) * scale
            ranks[name.removeprefix(WRAPPED)] = 2 * len(down)
        found = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        write_plain_lora(folder, found, tensors, ranks)


def callbacks(model: Any, keys: AdapterKeys) -> list[MethodCallback]:
    """Return what LoRA's variants do during training."""
    found: list[MethodCallback] = [LoraPlus(keys.loraplus_lr_ratio)] if keys.loraplus_lr_ratio else []
    config = getattr(model, "peft_config", {}).get("default")
    if config is not None and CHANGES_BASE.fullmatch(str(config.init_lora_weights).lower()):
        found.append(Residual(model, "default"))
    return found


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
