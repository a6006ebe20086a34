"""A key-value cache with room ahead, so that a step writes one column where transformers' would copy all of them."""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

ROOM = 64  # columns added at a time


def with_room(cache: Any) -> Any:
    """Give the plain layers of a filled cache room to grow; sliding windows, quantised and other layers stay."""
    for number, layer in enumerate(getattr(cache, "layers", [])):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[number] = RoomyLayer(layer)
    return cache


class RoomyLayer(DynamicLayer):
    """A `DynamicLayer` whose keys and values, (batch, heads, length, width), are the front part of longer buffers."""

    keys: Tensor
    values: Tensor

    def __init__(self, filled: Any) -> None:
        super().__init__()
        self.lazy_initialization(filled.keys, filled.values)
        self._hold(filled.keys, filled.values)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append columns; returns all keys and values."""
        start, end = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
        if end > self._buffers[0].shape[-2]:
            self._hold(self.keys, self.values, more=key_states.shape[-2])
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., start:end, :] = states
        self.keys, self.values = (buffer[..., :end, :] for buffer in self._buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows only."""
        self._hold(self.keys[indices], self.values[indices])

    def _hold(self, keys: Tensor, values: Tensor, more: int = 0) -> None:
        self._buffers = [_longer(states, more + ROOM) for states in (keys, values)]
        self.keys, self.values = (buffer[..., : keys.shape[-2], :] for buffer in self._buffers)


def _longer(states: Tensor, columns: int) -> Tensor:
    return torch.cat([states, states.new_empty(*states.shape[:-2], columns, states.shape[-1])], dim=-2)
