"""Indices that a saved adapter holds: which weights of the base it changes. torch would write wherever they point."""

from typing import Any

import torch
from torch import nn

from alignment.errors import ModelError

# PEFT builds sparse matrices of the indices below, which `require_indices` checks once, not torch at every pass.
torch.sparse.check_sparse_tensor_invariants.disable()  # type: ignore[no-untyped-call]


def require_indices(model: Any, adapter: str) -> None:
    """Reject indices outside their weights.

    Args:
        model: holds the loaded adapters. adapter: for the message.

    Raises: ModelError.
    """
    for name, module in model.named_modules():
        for key in ("shira_indices", "supertuning_indices"):
            for indices in (getattr(module, key, None) or {}).values():
                shape = _shape(module.get_base_layer())
                sizes = shape if key == "shira_indices" else (shape[0] * shape[1],)
                rows = indices if indices.dim() == 2 else indices[None]
                inside = [bool(((0 <= row) & (row < size)).all()) for row, size in zip(rows, sizes, strict=False)]
                if len(rows) != len(sizes) or not all(inside):
                    raise ModelError(
                        f"adapter {adapter} names weights that {name} does not have: its {key} lie outside "
                        f"{' × '.join(map(str, shape))}. Copy or train it again."
                    )


def _shape(layer: Any) -> tuple[int, ...]:
    """Return the shape of a layer's weight, which a base in 4 bits holds packed and ZeRO-3 in parts."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    return tuple(layer.weight.shape)
