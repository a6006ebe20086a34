"""The policy's weights as those of a plain model, one tensor at a time, for an engine that knows no adapters."""

from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor

from alignment.policy.roles import Roles


@torch.no_grad()
def policy_weights(roles: Roles) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors that the policy would have with its adapter merged; nothing is changed in place.

    4-bit weights are given in the precision they are computed in.
    """
    if roles.policy_model is not None:
        yield from roles.policy_model.named_parameters()
        return
    adapter = roles.adapters["policy"]
    model = roles.causal_lm("reference")
    inside: tuple[str, ...] = ()  # prefixes whose parts have been given already
    seen: set[int] = set()  # tied weights are given once
    for name, module in model.named_modules():
        if name.startswith(inside):
            continue
        if isinstance(module, LoraLayer | ModulesToSaveWrapper):
            inside += (f"{name}.",)
            yield from _of_wrapper(name, module, adapter)
            continue
        for key, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{name}.{key}".lstrip("."), parameter.data


def _with_magnitude(weight: Tensor, magnitude: Tensor) -> Tensor:
    """Give each row of `weight`, (out, in), its trained length: DoRA, https://arxiv.org/abs/2402.09353, equation 5."""
    return weight * (magnitude.float() / weight.norm(dim=1)).unsqueeze(1)


def _of_wrapper(name: str, module: Any, adapter: str | None) -> Iterator[tuple[str, Tensor]]:
    if isinstance(module, ModulesToSaveWrapper):
        own = module.modules_to_save[adapter] if adapter in module.modules_to_save else module.original_module
        yield from ((f"{name}.{key}", parameter.data) for key, parameter in own.named_parameters())
        return
    base = module.get_base_layer()
    weight = dequantize_module_weight(base)
    if adapter in module.lora_A and adapter not in module.merged_adapters:
        changed = weight.float() + module.get_delta_weight(adapter).float()
        if module.use_dora.get(adapter):
            changed = _with_magnitude(changed, module.lora_magnitude_vector[adapter].weight)
        weight = changed.to(weight.dtype)
    yield f"{name}.weight", weight
    if getattr(base, "bias", None) is not None:
        yield f"{name}.bias", base.bias.data
