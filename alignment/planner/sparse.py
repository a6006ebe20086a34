"""SHiRA's layers in a plan, which has no weights to choose places in.

PEFT's layer adds its changes to a copy of the base's weight, and autograd keeps the copy until the backward pass:
without gradient checkpointing the copies of all layers are as large as the layers.
"""

import copy
from types import MethodType
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.shira import ShiraLayer
from torch import Tensor, nn


def without_places(config: PeftConfig) -> PeftConfig:
    """Return the configuration of an adapter whose layers get no places when they are built."""
    found: Any = copy.deepcopy(config)
    found.mask_fn = lambda *_, **__: None
    return found


def give_places(model: nn.Module) -> None:
    """Let layers that were built without places compute as PEFT's, and hold as much memory."""
    for layer in [module for module in model.modules() if isinstance(module, ShiraLayer)]:
        for name, change in layer.shira_weight.items():
            indices = torch.empty(2, len(change), dtype=torch.int32, device="meta")
            layer.register_buffer(f"places_{name}", indices)
        layer.forward = MethodType(_forward, layer)


def _forward(layer: Any, x: Tensor, *_: Any, **__: Any) -> Tensor:
    base = layer.get_base_layer()
    if layer.disable_adapters:
        out: Tensor = base(x)
        return out
    weight = base.weight
    if hasattr(weight, "stored"):
        weight = weight.clone()  # dequantised
    for name in layer.active_adapters:
        if name in layer.shira_weight:
            weight = _Sum.apply(weight, layer.shira_weight[name])  # type: ignore[no-untyped-call]
    return nn.functional.linear(x, weight, base.bias)


class _Sum(torch.autograd.Function):
    """A weight plus changes at some places: a sparse tensor has 8-byte numbers of row and column, and a value."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, change: Tensor) -> Tensor:
        places = torch.empty(2, len(change), dtype=torch.int64, device=change.device)
        ctx.save_for_backward(places, change.clone())
        return weight.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        _places, change = ctx.saved_tensors
        return None, gradients[0].flatten()[: len(change)].clone()
