"""An adapter as plain LoRA, which servers such as vLLM take: one rank and one scale, A and B of linear layers."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import load_peft_weights
from peft.utils.other import ModulesToSaveWrapper
from safetensors.torch import save_file
from torch import Tensor, nn

from alignment.errors import ModelError
from alignment.policy.many_adapters import MORE, is_plain, scale_of
from alignment.policy.mergeable import Mergeable, added_to_base
from alignment.policy.methods import method_of
from alignment.policy.weight_files import ADAPTER
from alignment.rollout.vllm_adapter import RANKS

PREFIX = "base_model.model."
NEGLIGIBLE = 1e-5  # singular values below this share of the largest are rounding of float32
Pairs = dict[str, tuple[Tensor, Tensor]]  # by module: A, (rank, in), and B, (out, rank), with the scale in it


@dataclass(frozen=True)
class PlainLora:
    """Matrices by module, and how they were found."""

    pairs: Pairs
    how: str

    @property
    def rank(self) -> int:
        """The largest rank."""
        return max(down.shape[0] for down, _ in self.pairs.values())

    def save(self, folder: Path, base: str) -> None:
        """Write adapter_config.json and adapter_model.safetensors; smaller ranks are filled with zeros."""
        rank = self.rank
        weights = {}
        for module, (down, up) in self.pairs.items():
            missing = rank - down.shape[0]
            weights[f"{PREFIX}{module}.lora_A.weight"] = nn.functional.pad(down, (0, 0, 0, missing)).contiguous()
            weights[f"{PREFIX}{module}.lora_B.weight"] = nn.functional.pad(up, (0, missing)).contiguous()
        save_file(weights, folder / ADAPTER, metadata={"format": "pt"})
        config = LoraConfig(
            task_type="CAUSAL_LM",
            base_model_name_or_path=base,
            r=rank,
            lora_alpha=rank,
            target_modules=sorted(self.pairs),
            inference_mode=True,
        )
        config.save_pretrained(folder)


def why_no_vllm_lora(config: Any) -> str | None:
    """Return what of a LoRA configuration vLLM does not compute; None if it computes all.

    In vLLM, `PEFTHelper` (vllm/lora/peft_helper.py) refuses DoRA and modules_to_save, and knows one rank and one alpha
    for all layers; `parse_fine_tuned_lora_name` (vllm/lora/utils.py) refuses tensors other than A and B.
    """
    obstacles = {
        "vLLM has no DoRA": config.use_dora,
        "vLLM has no modules_to_save": bool(config.modules_to_save),
        "vLLM has no biases of an adapter": config.bias != "none" or config.lora_bias,
        "vLLM has one rank and one alpha for all layers": bool(config.rank_pattern or config.alpha_pattern),
        f"vLLM has no rank above {RANKS[-1]}": config.r > RANKS[-1],
    }
    return next((reason for reason, holds in obstacles.items() if holds), None)


def is_accepted(adapter: str, config: Any) -> bool:
    """Whether vLLM computes an adapter's folder as it lies."""
    return is_plain(adapter, config) and not config.use_rslora and why_no_vllm_lora(config) is None


def plain_lora(adapter: Mergeable, model: Any) -> PlainLora:
    """Return an adapter's change of the base as plain LoRA, exactly.

    The scales of a LoRA adapter go into B. The change by another type is factored by its singular values, and refused
    if these are too many.

    Args:
        model: the base with the adapter, from `load_causal_lm`. It is changed.

    Raises: ModelError if the adapter's change is more than plain LoRA of a rank that vLLM takes.
    """
    config = adapter.config
    if is_plain(adapter.adapter, config):
        found = PlainLora(_scaled(adapter), "its own matrices, the scale of each layer in B")
    else:
        found = PlainLora(_factored(adapter, model), "the singular vectors of its change of the weights")
    if not found.pairs:
        raise _refusal(adapter, "changes no weight")
    if found.rank > RANKS[-1]:
        raise _refusal(adapter, f"has rank {found.rank}, and vLLM takes at most {RANKS[-1]}")
    return found


def _refusal(adapter: Mergeable, why: str) -> ModelError:
    title = method_of(adapter.config).title
    return ModelError(
        f"{adapter.run} is an adapter of {title} and {why}; export the merged model instead: leave --adapter out."
    )


def _scaled(adapter: Mergeable) -> Pairs:
    """Return the matrices of LoRA with the scale in B, which is exact up to the rounding of one product."""
    weights = load_peft_weights(adapter.adapter, device="cpu")
    modules = {name.removeprefix(PREFIX).rpartition(".lora_")[0] for name in weights}
    pairs = {}
    for module in sorted(modules):
        down, up = (weights[f"{PREFIX}{module}.lora_{letter}.weight"].float() for letter in "AB")
        pairs[module] = (down, up * scale_of(adapter.config, module, down.shape[0]))
    return pairs


def _factored(adapter: Mergeable, model: Any) -> Pairs:
    odd = [name for name in MORE if getattr(adapter.config, name, None) and name != "use_dora"]
    if odd:
        raise _refusal(adapter, f"has {odd[0]}, which is more than A and B of linear layers")
    before = {name: parameter.detach().clone() for name, parameter in _base_parameters(model)}
    merged = added_to_base(model)
    linear = {f"{name}.weight" for name, module in merged.named_modules() if isinstance(module, nn.Linear)}
    pairs = {}
    for name, changed in sorted(merged.named_parameters()):
        old = before.get(name)
        if old is not None and torch.equal(old, changed):
            continue
        if old is None or name not in linear:
            raise _refusal(adapter, f"changes {name}, which is no weight of a linear layer")
        pairs[name.removesuffix(".weight")] = _pair(adapter, name, changed.detach().double() - old.double())
    return pairs


def _base_parameters(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the base's parameters under the names that they have without the adapter's modules."""
    inside: tuple[str, ...] = ()
    for name, module in model.get_base_model().named_modules():
        if name.startswith(inside) and inside:
            continue
        if isinstance(module, BaseTunerLayer):
            inside += (f"{name}.",)
            for key, parameter in module.get_base_layer().named_parameters():
                yield f"{name}.{key}", parameter
        elif isinstance(module, ModulesToSaveWrapper):
            inside += (f"{name}.",)
            for key, parameter in module.original_module.named_parameters():
                yield f"{name}.{key}", parameter
        else:
            for key, parameter in module.named_parameters(recurse=False):
                yield f"{name}.{key}".lstrip("."), parameter


def _pair(adapter: Mergeable, name: str, change: Tensor) -> tuple[Tensor, Tensor]:
    """Factor a change of a weight, (out, in), by its singular values.

    Raises: ModelError if the factors are not smaller than the weight, or of too high a rank.
    """
    left, values, right = torch.linalg.svd(change, full_matrices=False)
    rank = int((values > NEGLIGIBLE * values[0]).sum())
    if rank > RANKS[-1] or rank * sum(change.shape) > change.numel():
        raise _refusal(adapter, f"changes {name} by a matrix of rank {rank}, which is no LoRA of a rank below its size")
    roots = values[:rank].sqrt()
    return (roots[:, None] * right[:rank]).float(), (left[:, :rank] * roots).float()
