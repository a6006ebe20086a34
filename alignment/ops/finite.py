"""Finds NaN and infinity at the cost of a sum."""

from collections.abc import Iterable

import torch
from torch import Tensor


def first_not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the name of the first tensor that holds NaN or infinity; None if all are finite.

    A sum that is not finite has such a term or has overflowed; only then each number is checked. All sums are read at
    once, so that the GPU is synchronised once.
    """
    named = [(name, tensor) for name, tensor in tensors if tensor.is_floating_point() and tensor.numel()]
    sums = [tensor.detach().sum(dtype=torch.float32) for _, tensor in named]
    by_device: dict[torch.device, list[int]] = {}
    for place, total in enumerate(sums):
        by_device.setdefault(total.device, []).append(place)
    suspects = [
        place
        for places in by_device.values()
        for place, finite in zip(places, torch.isfinite(torch.stack([sums[p] for p in places])).tolist(), strict=True)
        if not finite
    ]
    return next((named[p][0] for p in sorted(suspects) if not bool(torch.isfinite(named[p][1]).all())), None)
