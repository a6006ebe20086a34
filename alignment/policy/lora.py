"""LoRA's linear layers with a fused pass, for one active adapter.

PEFT computes base(x) + B(A(x))·s with one module after the other, and each leaves a tensor of the layer's width behind,
some in another precision. Here it is one operation with its own backward pass: it adds the small products in place and
saves only its input and A(x), `r` numbers per token. The precisions are PEFT's: an adapter in float32 on a base in
bfloat16 computes in float32, under autocast everything computes in its type, and a quantised weight is dequantised for
each product. tests/policy/test_lora.py compares it with PEFT's layers.
"""

from contextlib import nullcontext
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit as QuantisedBase
from peft.tuners.lora import Linear
from peft.tuners.lora.bnb import Linear4bit, Linear8bitLt
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.autograd.function import once_differentiable

from alignment.policy.eight_bits import Linear8bit

WHOLE = (nn.Parameter, Tensor, FakeTensor)  # types of weights that are neither sharded nor packed


def fuse_lora(model: Any) -> Any:
    """Give all LoRA layers of `model` the fused pass, and return it; weights, names and PEFT's methods stay.

    A layer computes as PEFT's own wherever the fused pass does not apply: several active adapters or none, merged or
    sharded weights, a trained base, dropout, an adapter's bias, DoRA and other variants, hooks inside, torch.compile.
    """
    for layer in model.modules():
        layer.__class__ = FUSED.get(type(layer), type(layer))
    return model


class _Fused:
    """PEFT's layer with another forward pass."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return base(x) + B(A(x))·s."""
        adapter = None if args or kwargs else _single_adapter(self, x)
        if adapter is None:
            whole: Tensor = super().forward(x, *args, **kwargs)  # type: ignore[misc]
            return whole
        found: Tensor
        if torch.is_grad_enabled():
            found = _LoraLinear.apply(x, *adapter)  # type: ignore[no-untyped-call]
        else:
            found = _output(x, *adapter)[0]
        return found.view(*x.shape[:-1], found.shape[-1])  # here: a model may change it in place


class FusedLinear(_Fused, Linear):
    """LoRA on `nn.Linear`."""


class FusedLinear4bit(_Fused, Linear4bit):
    """LoRA on the `Linear4bit` of bitsandbytes."""


class FusedLinear8bit(_Fused, Linear8bitLt):
    """LoRA on `Linear8bit`."""


FUSED = {Linear: FusedLinear, Linear4bit: FusedLinear4bit, Linear8bitLt: FusedLinear8bit}
PACKED = (QuantisedBase, Linear8bit)


def _single_adapter(layer: Any, x: Tensor) -> tuple[Any, ...] | None:
    """Return the arguments of the fused operation after `x`; None if it does not apply."""
    names = layer.active_adapters
    if len(names) != 1 or layer._disable_adapters or layer.merged_adapters or torch.compiler.is_compiling():
        return None
    name, parts = names[0], layer._modules
    if name not in parts["lora_A"] or name in layer.lora_variant or layer.lora_bias[name]:
        return None
    dropout = parts["lora_dropout"][name]
    if layer.training and type(dropout) is not nn.Identity and dropout.p > 0:
        return None
    base, down, up = layer.base_layer, parts["lora_A"][name], parts["lora_B"][name]
    for part in (base, down, up):
        if part._forward_pre_hooks or part._forward_hooks or "forward" in part.__dict__:
            return None
    bias, down, up = base.bias, down.weight, up.weight
    if (bias is not None and bias.requires_grad) or not (_computes(base, x) and _is_whole(down) and _is_whole(up)):
        return None
    return base.weight, bias, down, up, base if type(base) in PACKED else None, layer.scaling[name]


def _computes(base: Any, x: Tensor) -> bool:
    """Whether the base's product is computed here: of a frozen weight, in types that PEFT accepts too."""
    weight = base.weight
    if weight.requires_grad:
        return False
    if type(base) is Linear8bit:
        return True
    if type(base) is QuantisedBase:  # packed for the CPU's own instructions, its constants are rounded
        known = getattr(weight, "quant_state", None) is not None
        return known and not base.support_avx512bf16_for_cpu and not hasattr(weight, "ds_id")
    if type(base) is not nn.Linear or not _is_whole(weight):
        return False
    if torch.is_autocast_enabled(x.device.type):
        return torch.float64 not in (x.dtype, weight.dtype)  # which autocast leaves as they are
    return weight.dtype == x.dtype


def _is_whole(weight: Any) -> bool:
    """Whether a weight lies here: under FSDP2 it may be a DTensor, and data of ZeRO-3 may be on the way."""
    return type(weight) in WHOLE and weight.dim() == 2 and not hasattr(weight, "ds_id")


def _output(
    x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, packed: Any, scaling: float
) -> tuple[Tensor, Tensor, Tensor, torch.dtype]:
    """Return x Wᵀ + b + s (x Aᵀ) Bᵀ, (tokens, out), the rows of x, A of them, (tokens, r), and the base's type.

    Args:
        packed: the base's module if its weight has 4 or 8 bits.
    """
    device = x.device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    own = autocast or down.dtype  # in which the adapter computes
    rows = wide = x.flatten(0, -2) if x.dim() > 1 else x.unsqueeze(0)
    if packed is None:
        theirs = autocast or weight.dtype
        wide = rows.to(theirs)
        out = nn.functional.linear(wide, weight.to(theirs), None if bias is None else bias.to(theirs))
    else:
        out = packed(rows)
        theirs = getattr(packed, "compute_dtype", autocast) or rows.dtype
    low = nn.functional.linear(wide.to(own), down.to(own))
    out = _plus_product(out, low, up.to(own).T, scaling)
    return out, rows, low, theirs


class _LoraLinear(torch.autograd.Function):
    """x Wᵀ + b + s (x Aᵀ) Bᵀ; x is (..., in), W (out, in) or packed, A (r, in), B (out, r). W and b get no gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, packed: Any, scaling: float
    ) -> Tensor:
        out, rows, low, ctx.theirs = _output(x, weight, bias, down, up, packed, scaling)
        ctx.save_for_backward(rows, low, weight, down, up)
        ctx.packed = packed
        ctx.scaling, ctx.shape = scaling, x.shape
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        device = upstream.device.type
        with torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext():
            rows, low, weight, down, up = ctx.saved_tensors
            wants_x, _, _, wants_down, wants_up, *_ = ctx.needs_input_grad
            own = low.dtype
            inner = upstream.to(own)
            grad_x = grad_down = grad_up = None
            if wants_up:
                grad_up = (inner.T @ low).mul_(ctx.scaling).to(up.dtype)
            if wants_x or wants_down:
                below = (inner @ up.to(own)).mul_(ctx.scaling)  # (tokens, r)
                if wants_down:
                    grad_down = (below.T @ rows.to(own)).to(down.dtype)
                if wants_x:
                    grad_x = upstream.to(ctx.theirs) @ _in_floats(weight, ctx.packed, ctx.theirs)
                    grad_x = _plus_product(grad_x, below, down.to(own), 1).to(rows.dtype).view(ctx.shape)
        return grad_x, None, None, grad_down, grad_up, None, None


def _in_floats(weight: Tensor, packed: Any, dtype: torch.dtype) -> Tensor:
    if isinstance(packed, Linear8bit):
        return packed.in_floats(dtype)
    return (weight if packed is None else dequantize_4bit(weight, packed.weight.quant_state)).to(dtype)


def _plus_product(out: Tensor, left: Tensor, right: Tensor, scaling: float) -> Tensor:
    """Return out + s · left · right in the type of `out`: in its place, or rounded once if the product is wider."""
    if out.dtype == left.dtype:
        return out.addmm_(left, right, alpha=scaling)
    wide = torch.promote_types(out.dtype, left.dtype)
    return out.to(wide).addmm_(left.to(wide), right.to(wide), alpha=scaling).to(out.dtype)
