"""Sparse adapters in the format of PEFT's SHiRA: chosen weights of linear layers, their places and their changes.

SHiRA gives each layer r · (in + out) places. Where fewer weights of a layer are chosen, the remaining places repeat one
place with a change of zero, and their gradients are held at zero: plain PEFT loads the adapter, and only chosen weights
change.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from peft.tuners.shira import ShiraLayer
from torch import Tensor, nn

from alignment.errors import ModelError
from alignment.policy.methods import indices as _  # noqa: F401 - decides that torch checks no indices


def sparse_layers(model: nn.Module, adapter: str) -> dict[str, Any]:
    """Return the layers of a model with a SHiRA adapter, by name."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, ShiraLayer) and adapter in layer.shira_weight
    }


def base_parameters(model: nn.Module) -> int:
    """Return how many weights a model has without its adapters; a 4-bit model has as many as before."""
    inside = {id(p) for layer in model.modules() if isinstance(layer, ShiraLayer) for p in layer.shira_weight.values()}
    total = 0
    for name, p in model.named_parameters():
        if id(p) not in inside and "modules_to_save" not in name:
            packed = 2 * p.element_size() if type(p).__name__ == "Params4bit" else 1
            total += p.numel() * packed
    return total


def room_for(count: int, layers: Iterable[Any], r: int | None = None) -> int:
    """Return the smallest rank that gives places to `count` weights; `r`: the rank that is wanted.

    Raises: ModelError if there is none, or `r` is none.
    """
    sides = [(layer.in_features, layer.out_features) for layer in layers]
    most = min(rows * columns // (rows + columns) for rows, columns in sides)
    per_rank = sum(rows + columns for rows, columns in sides)
    needed = -(-count // per_rank)
    if needed > most:
        raise ModelError(
            f"{count:,} weights are too many for a sparse adapter on these layers: it has places for "
            f"{most * per_rank:,}. Lower fraction, or name other target_modules."
        )
    if r is not None and not needed <= r <= most:
        raise ModelError(f"r is {r}; {count:,} weights on these layers need an r from {needed} to {most}.")
    return r or max(needed, 1)


@torch.no_grad()
def choose(layers: Mapping[str, Any], chosen: Mapping[str, Tensor], adapter: str) -> None:
    """Make the adapter of each layer one on the chosen places, with changes of zero.

    Args:
        chosen: by layer, places in the flattened weight, at most as many as the adapter has.
    """
    for name, layer in layers.items():
        weight, places = layer.shira_weight[adapter], chosen[name]
        size = len(weight)
        places = torch.cat([places, places[:1].expand(size - len(places))]) if len(places) else _nowhere(size)
        indices = torch.stack([places // layer.in_features, places % layer.in_features])
        layer.shira_indices[adapter] = indices.to(weight.device, torch.int)
        weight.zero_()


def hold_repeated_places(model: nn.Module, adapters: set[str] | None = None) -> None:
    """Keep the changes of repeated places at zero: their gradients are set to zero.

    Args:
        adapters: that train; None: all.
    """
    for layer in model.modules():
        for name, weight in layer.shira_weight.items() if isinstance(layer, ShiraLayer) else ():
            if weight.requires_grad and (adapters is None or name in adapters):
                weight.register_hook(_Held(layer, name))


def trained_places(layer: Any, adapter: str) -> Tensor:
    """Return which of a layer's places are chosen weights, (places,) bool; the others are held at zero."""
    indices = layer.shira_indices[adapter].long()
    places = indices[0] * layer.in_features + indices[1]
    if torch.equal(places.cpu(), _nowhere(len(places))):
        return torch.zeros_like(places, dtype=torch.bool)
    order = torch.argsort(places, stable=True)
    first = torch.ones_like(places, dtype=torch.bool)
    first[order[1:]] = places[order[1:]] != places[order[:-1]]
    return first


def _nowhere(size: int) -> Tensor:
    """Return the places of a layer without a chosen weight: 1, then 0 repeated; chosen places are ascending."""
    places = torch.zeros(size, dtype=torch.int64)
    places[0] = 1
    return places


class _Held:
    """A hook on the gradient of an adapter's changes; the places may be chosen or loaded after it is registered."""

    def __init__(self, layer: Any, adapter: str) -> None:
        self.layer, self.adapter = layer, adapter
        self.indices: Tensor | None = None
        self.trained: Tensor | None = None

    def __call__(self, gradient: Tensor) -> Tensor:
        indices = self.layer.shira_indices[self.adapter]
        if self.trained is None or self.indices is not indices:
            self.indices, self.trained = indices, trained_places(self.layer, self.adapter).to(gradient.device)
        return gradient * self.trained.to(gradient.dtype)
