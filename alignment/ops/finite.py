"""Finding NaN and infinity at the price of a sum."""

from collections.abc import Iterable

import torch
from torch import Tensor


def first_not_finite(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """Return the name of the first tensor that holds NaN or infinity; None where all are finite.

    A sum is finite where all its terms are, or else may have overflowed: only then each number is looked at. All sums
    are read at once, so that a GPU is waited for once.
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
