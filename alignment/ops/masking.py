"""Statistics over the tokens that count."""

import torch
from torch import Tensor

from alignment.errors import ShapeError


def require_same_shape(**tensors: Tensor) -> None:
    """Raise ShapeError unless all named tensors have one shape."""
    if len({tuple(tensor.shape) for tensor in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ShapeError(f"these must have one shape, (batch, time): {shapes}")


def masked_sum(x: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Sum of `x` where `mask`; what stands under a False, even NaN or infinity, plays no part.

    Args:
        x: any shape. mask: bool, same shape. dim: None for all.
    """
    require_same_shape(x=x, mask=mask)
    return torch.where(mask, x, 0.0).sum() if dim is None else torch.where(mask, x, 0.0).sum(dim)


def masked_mean(x: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Mean of `x` where `mask`; zero where nothing counts."""
    count = mask.sum() if dim is None else mask.sum(dim)
    return masked_sum(x, mask, dim) / count.clamp(min=1)


def masked_var(x: Tensor, mask: Tensor) -> Tensor:
    """Variance of `x` where `mask`, n-1 in the denominator; zero where fewer than two count."""
    mean = masked_mean(x, mask)
    return masked_sum((x - mean) ** 2, mask) / (mask.sum() - 1).clamp(min=1)


def whiten_with(x: Tensor, mask: Tensor, *, mean: Tensor, var: Tensor, eps: float = 1e-8) -> Tensor:
    """Shift and scale `x` to mean 0 and variance 1 by statistics given, those of the global batch say.

    Returns: (x - mean) / sqrt(var + eps) where `mask`, zero elsewhere.
    """
    require_same_shape(x=x, mask=mask)
    return torch.where(mask, (x - mean) * torch.rsqrt(var + eps), 0.0)


def whiten(x: Tensor, mask: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Shift and scale `x` to mean 0 and variance 1 over all tokens that count.

    Fewer than two tokens, or tokens all alike, have no spread to scale by; they come out as zero.
    """
    return whiten_with(x, mask, mean=masked_mean(x, mask), var=masked_var(x, mask), eps=eps)
