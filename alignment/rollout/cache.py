"""A key-value cache with room ahead, so that a step writes one column where transformers' would copy all of them."""

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicLayer

ROOM = 64  # columns added at a time if the number to come is unknown


def with_room(cache: Any, columns: int = ROOM) -> Any:
    """Give the plain layers of a filled cache room for more columns; sliding windows, quantised and others stay.

    Args:
        columns: how many will come. Blocks of memory that grow later cannot take the place of those they replace.
    """
    for number, layer in enumerate(getattr(cache, "layers", [])):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[number] = RoomyLayer(layer, columns)
    return cache


class RoomyLayer(DynamicLayer):
    """A `DynamicLayer` whose keys and values, (batch, heads, length, width), are the front part of longer buffers."""

    keys: Tensor
    values: Tensor

    def __init__(self, filled: Any, columns: int = ROOM) -> None:
        super().__init__()
        self.lazy_initialization(filled.keys, filled.values)
        self._hold(filled.keys, filled.values, columns)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append columns; returns all keys and values."""
        start, end = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
        if end > self._buffers[0].shape[-2]:
            self._hold(self.keys, self.values, key_states.shape[-2] + ROOM)
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., start:end, :] = states
        self.keys, self.values = (buffer[..., :end, :] for buffer in self._buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows only, in the memory that is held already."""
        length = self.keys.shape[-2]
        for place, buffer in enumerate(self._buffers):
            kept = buffer[: len(indices)]
            kept[..., :length, :] = buffer[..., :length, :][indices]
            self._buffers[place] = kept
        self.keys, self.values = (buffer[..., :length, :] for buffer in self._buffers)

    def _hold(self, keys: Tensor, values: Tensor, columns: int) -> None:
        self._buffers = [_longer(states, columns) for states in (keys, values)]
        self.keys, self.values = (buffer[..., : keys.shape[-2], :] for buffer in self._buffers)


def _longer(states: Tensor, columns: int) -> Tensor:
    longer = states.new_empty(*states.shape[:-2], states.shape[-2] + columns, states.shape[-1])
    longer[..., : states.shape[-2], :] = states
    return longer
