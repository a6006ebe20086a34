"""The policy's weights as those of a plain model, one tensor at a time, for an engine without adapters."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.integrations import dequantize_module_weight
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn

from alignment.errors import ModelError, first_line
from alignment.policy.output_layer import without_rounding
from alignment.policy.roles import Roles
from alignment.policy.switch import ADAPTER


def bfloat16_copy(roles: Roles) -> Any:
    """Return a plain model of the policy's class in bfloat16 beside it, whose weights are not the policy's yet.

    Raises: ModelError if a GPU's free memory does not hold it.
    """
    policy = roles.causal_lm("policy")
    device = next(policy.parameters()).device
    config = copy.deepcopy(policy.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    if device.type == "cuda":
        with torch.device("meta"):
            described = type(policy)._from_config(config, dtype=torch.bfloat16)
        _require_room(sum(parameter.nbytes for parameter in described.parameters()), device)
    with torch.random.fork_rng(devices=[]), torch.device(device):
        model = type(policy)._from_config(config, dtype=torch.bfloat16)
    without_rounding(model)
    return model.requires_grad_(False).eval()


def _require_room(needed: int, device: torch.device) -> None:
    free, _ = torch.cuda.mem_get_info(device)
    if free < needed:
        raise ModelError(
            f"rollout_engine is merged, whose copy of the policy takes {needed / 2**30:.1f} GiB, and {device} has "
            f"{free / 2**30:.1f} GiB free; use rollout_engine: transformers"
        )


@torch.no_grad()
def policy_weights(roles: Roles) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors that the policy would have with its adapter merged; nothing is changed in place.

    Quantised weights are given in the precision they are computed in. No role may compute before all tensors are taken.
    """
    if roles.whole_policy is not None:
        yield from roles.whole_policy.named_parameters()
        return
    with roles.switched.plain("policy"):
        yield from _weights(roles.base)


def _weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    inside: tuple[str, ...] = ()  # prefixes whose parts have been given already
    seen: set[int] = set()  # tied weights are given once
    for name, module in model.named_modules():
        if name.startswith(inside):
            continue
        if isinstance(module, BaseTunerLayer | ModulesToSaveWrapper):
            inside += (f"{name}.",)
            yield from ((f"{name}.{key}", tensor) for key, tensor in _of_wrapper(module))
            continue
        for key, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                whole = dequantize_module_weight(module) if key == "weight" else parameter
                yield f"{name}.{key}".lstrip("."), whole.data


def _with_magnitude(weight: Tensor, magnitude: Tensor) -> Tensor:
    """Give each row of `weight`, (out, in), its trained length: DoRA, https://arxiv.org/abs/2402.09353."""
    return weight * (magnitude.float() / weight.norm(dim=1)).unsqueeze(1)


def _of_wrapper(module: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(module, ModulesToSaveWrapper):
        yield from ((key, parameter.data) for key, parameter in module.modules_to_save[ADAPTER].named_parameters())
        return
    base = module.get_base_layer()
    if not isinstance(module, LoraLayer) or ADAPTER in module.lora_embedding_A:
        yield from _merged_by_peft(module)
        return
    weight, bias = dequantize_module_weight(base), getattr(base, "bias", None)
    if ADAPTER in module.lora_A and ADAPTER not in module.merged_adapters:
        changed = weight.float() + module.get_delta_weight(ADAPTER).float()
        if module.use_dora.get(ADAPTER):
            changed = _with_magnitude(changed, module.lora_magnitude_vector[ADAPTER].weight)
        weight = changed.to(weight.dtype)
        if module.lora_bias.get(ADAPTER):
            assert bias is not None  # `why_not_merged` refuses the adapter
            bias = (bias.float() + module.scaling[ADAPTER] * module.lora_B[ADAPTER].bias.float()).to(bias.dtype)
    yield "weight", weight
    if bias is not None:
        yield "bias", bias.data


def _merged_by_peft(module: Any) -> Iterator[tuple[str, Tensor]]:
    """Merge a copy of a layer.

    Raises: ModelError if its type cannot be merged, or its base is quantised, which would round the sum.
    """
    layer = copy.deepcopy(module)
    base = layer.get_base_layer()
    if not all(parameter.is_floating_point() for parameter in base.parameters()):
        raise ModelError(
            f"{type(module).__name__} on a quantised base cannot be merged for an engine that samples from whole "
            "weights; take load_in_4bit or load_in_8bit out, or use rollout_engine: transformers"
        )
    try:
        layer.merge(safe_merge=True)
    except (NotImplementedError, ValueError, AttributeError) as error:
        raise ModelError(
            f"{type(module).__name__} cannot be merged for an engine that samples from whole weights "
            f"({first_line(error)}); use rollout_engine: transformers"
        ) from error
    yield from ((key, parameter.data) for key, parameter in layer.get_base_layer().named_parameters())
