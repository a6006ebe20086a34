"""Logits as a model makes them of its output layer's numbers, and that layer's product without rounding."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

HALVES = (torch.float16, torch.bfloat16)
ROWS_AT_ONCE = 8192  # of a weight that is widened on a CPU, which multiplies half precision into half precision alone


@dataclass(frozen=True, slots=True)
class LogitRule:
    """What a model does to its output layer's numbers z: cap · tanh(scale · z / cap), without a cap scale · z."""

    scale: float = 1.0
    cap: float | None = None

    def __call__(self, raw: Tensor) -> Tensor:
        """Logits of what the output layer gives, in float32 at least."""
        return self.with_slope(raw)[0]

    def with_slope(self, raw: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits, and their slope in `scale · raw`; None if it is 1."""
        raw = raw.float() if raw.dtype in HALVES else raw
        logits = raw if self.scale == 1.0 else raw * self.scale
        if self.cap is None:
            return logits, None
        bent = torch.tanh(logits / self.cap)
        return self.cap * bent, 1.0 - bent * bent


def wide_product(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply x by Wᵀ, in float32 where both are of half precision.

    A GPU sums products of half precision in float32 and then rounds: between 16 and 32 bfloat16 has steps of 0.125, and
    log-probabilities move by as much wherever a batch is cut otherwise. Here they are not rounded.

    Args:
        x: (n, width). weight: (m, width), of the same dtype.
    """
    if x.dtype not in HALVES:
        return x @ weight.T
    if x.device.type == "cpu":
        return torch.cat([x.float() @ rows.float().T for rows in torch.split(weight, ROWS_AT_ONCE)], dim=-1)
    return torch.mm(x, weight.T, out_dtype=torch.float32)


def wide_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A linear layer by `wide_product`, (..., width) → (..., m), computed from what autocast makes of its inputs."""
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    with torch.autocast(kind, enabled=False):
        rows, weight = x.to(dtype).reshape(-1, x.shape[-1]), weight.to(dtype)
        out: Tensor = _WideLinear.apply(rows, weight)  # type: ignore[no-untyped-call]
        out = out if bias is None else out + bias.to(out.dtype)
        return out.view(*x.shape[:-1], -1)


class _WideLinear(torch.autograd.Function):
    """`wide_product` with gradients in the precision of its inputs, as of a plain linear layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return wide_product(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        above = upstream.to(x.dtype)
        wants_x, wants_weight = ctx.needs_input_grad
        return above @ weight if wants_x else None, above.T @ x if wants_weight else None
