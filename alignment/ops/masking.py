"""Statistics over the tokens of a mask."""

import torch
from torch import Tensor

from alignment.errors import ShapeError


def require_same_shape(**tensors: Tensor) -> None:
    """Raise ShapeError unless all named tensors have one shape."""
    if len({tuple(tensor.shape) for tensor in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ShapeError(f"these must have one shape, (batch, time): {shapes}")


def masked_sum(x: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Sum of `x` where `mask`; values under a False, even NaN or infinity, are ignored.

    Args:
        x: any shape. mask: bool, same shape. dim: None for all.
    """
    require_same_shape(x=x, mask=mask)
    return torch.where(mask, x, 0.0).sum() if dim is None else torch.where(mask, x, 0.0).sum(dim)


def masked_mean(x: Tensor, mask: Tensor, dim: int | None = None) -> Tensor:
    """Mean of `x` where `mask`; zero if the mask is empty."""
    count = mask.sum() if dim is None else mask.sum(dim)
    return masked_sum(x, mask, dim) / count.clamp(min=1)


def masked_var(x: Tensor, mask: Tensor) -> Tensor:
    """Variance of `x` where `mask`, n-1 in the denominator; zero for fewer than two tokens."""
    mean = masked_mean(x, mask)
    return masked_sum((x - mean) ** 2, mask) / (mask.sum() - 1).clamp(min=1)


def whiten_with(x: Tensor, mask: Tensor, *, mean: Tensor, var: Tensor, eps: float = 1e-8) -> Tensor:
    """Shift and scale `x` to mean 0 and variance 1 by given statistics, such as the global batch's.

    Returns: (x - mean) / sqrt(var + eps) where `mask`, zero elsewhere.
    """
    require_same_shape(x=x, mask=mask)
    return torch.where(mask, (x - mean) * torch.rsqrt(var + eps), 0.0)


def whiten(x: Tensor, mask: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Shift and scale `x` to mean 0 and variance 1 over the tokens of the mask.

    Fewer than two tokens, or equal ones, have no variance; the result is zero.
    """
    return whiten_with(x, mask, mean=masked_mean(x, mask), var=masked_var(x, mask), eps=eps)
