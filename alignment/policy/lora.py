"""A fused LoRA linear layer, for one active adapter.

PEFT computes base(x) + B(A(x))·s with one module after the other, and each leaves a tensor of the layer's width behind.
Here it is one operation with its own backward pass: it adds the small products in place and saves only its input and
A(x), `r` numbers per token. tests/policy/test_lora.py compares it with PEFT's layer.
"""

import types
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def lean_forward(layer: Any) -> None:
    """Give a PEFT LoRA layer the fused forward pass if it is a plain linear layer; it computes the same."""
    if type(layer) is Linear and type(layer.base_layer) is nn.Linear:
        layer.forward = types.MethodType(_forward, layer)


def _forward(layer: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    names = layer._active_adapter
    name = names[0] if len(names) == 1 else None
    if args or kwargs or layer._disable_adapters or layer.merged_adapters or not _plain(layer, name, x):
        whole: Tensor = type(layer).forward(layer, x, *args, **kwargs)
        return whole
    base, down, up = layer.base_layer, layer.lora_A[name].weight, layer.lora_B[name].weight
    weights = (base.weight, base.bias, down, up)
    found: Tensor = _LoraLinear.apply(x, *weights, layer.scaling[name])  # type: ignore[no-untyped-call]
    return found


def _plain(layer: Any, name: str | None, x: Tensor) -> bool:
    """Whether it is plain LoRA in one precision on a frozen weight that is not sharded."""
    if name is None or name not in layer.lora_A or name in layer.lora_variant or layer.lora_bias[name]:
        return False
    dropout = layer.lora_dropout[name]
    if isinstance(dropout, nn.Dropout) and dropout.p > 0 and layer.training:
        return False
    base, down, up = layer.base_layer, layer.lora_A[name], layer.lora_B[name]
    weights = (base.weight, down.weight, up.weight)
    return (
        all(type(w.data) is Tensor and w.dtype == x.dtype and w.dim() == 2 for w in weights)
        and not base.weight.requires_grad
        and not torch.is_autocast_enabled(x.device.type)
        and not any(part._forward_pre_hooks or part._forward_hooks for part in (base, down, up))
    )


class _LoraLinear(torch.autograd.Function):
    """x Wᵀ + b + s (x Aᵀ) Bᵀ with W and b frozen."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scaling: float
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        low = rows @ down.T  # (tokens, r)
        out = rows @ weight.T if bias is None else torch.addmm(bias, rows, weight.T)
        out.addmm_(low, up.T, alpha=scaling)
        ctx.save_for_backward(rows, low, weight, down, up)
        ctx.scaling, ctx.shape = scaling, x.shape
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        rows, low, weight, down, up = ctx.saved_tensors
        wants_x, _, _, wants_down, wants_up, _ = ctx.needs_input_grad
        above = upstream.reshape(-1, upstream.shape[-1])
        grad_x = grad_down = grad_up = None
        if wants_up:
            grad_up = (above.T @ low).mul_(ctx.scaling)
        if wants_x or wants_down:
            below = (above @ up).mul_(ctx.scaling)  # (tokens, r)
            if wants_down:
                grad_down = below.T @ rows
            if wants_x:
                grad_x = (above @ weight).addmm_(below, down).view(ctx.shape)
        return grad_x, None, None, grad_down, grad_up, None
