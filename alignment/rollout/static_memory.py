"""The tensors of decoding with fixed shapes: cache, mask and counters, at the same addresses for every batch."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from alignment.errors import ModelError
from alignment.rollout.buckets import COLUMNS, bucket

State = tuple[Tensor, Tensor]  # keys and values of a layer, (rows, heads, columns, width)


@dataclass(frozen=True, slots=True)
class Room:
    """How much a batch needs: rows, columns of the cache, and tokens of an answer."""

    rows: int
    columns: int
    tokens: int

    def holds(self, other: "Room") -> bool:
        """Whether a batch of another size fits."""
        return self.rows >= other.rows and self.columns >= other.columns and self.tokens >= other.tokens

    def joined(self, other: "Room | None") -> "Room":
        """Return the room for either."""
        if other is None:
            return self
        pairs = ((self.rows, other.rows), (self.columns, other.columns), (self.tokens, other.tokens))
        return Room(*(max(pair) for pair in pairs))


class StaticMemory:
    """The state of a batch on the device. A step reads and writes it and nothing else.

    Args:
        layers: keys and values of a batch's prompts, of each layer: the buffers have their heads, widths and types.
    """

    def __init__(self, layers: list[State], room: Room) -> None:
        device = layers[0][0].device
        rows, columns, tokens = room.rows, room.columns, room.tokens
        self.room = room
        self.layers = [(_buffer(keys, rows, columns), _buffer(values, rows, columns)) for keys, values in layers]
        self.input_ids = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.positions = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.mask = torch.zeros(rows, 1, 1, columns, dtype=torch.bool, device=device)
        self.column = torch.zeros(1, dtype=torch.long, device=device)  # of the cache, that the next step writes
        self.drawn = torch.zeros(1, dtype=torch.long, device=device)  # tokens of each answer so far
        self.uniform = torch.zeros(rows, tokens, dtype=torch.float64, device=device)
        self.tokens = torch.zeros(rows, tokens, dtype=torch.long, device=device)
        self.logp = torch.zeros(rows, tokens, device=device)

    @property
    def of_rows(self) -> list[Tensor]:
        """The tensors with an entry for each row, without the cache."""
        return [self.input_ids, self.positions, self.mask, self.uniform, self.tokens, self.logp]

    def begin(self, layers: list[State], mask: Tensor | None, uniform: Tensor) -> None:
        """Take over a batch after its prompts' pass; mask: (rows, time) bool, None without padding."""
        rows, _, time, _ = layers[0][0].shape
        for buffers, states in zip(self.layers, layers, strict=True):
            for buffer, state in zip(buffers, states, strict=True):
                buffer.zero_()  # what is masked still takes part in sums, times 0
                buffer[:rows, :, :time] = state
        for tensor in self.of_rows:
            tensor.zero_()
        self.mask[:rows, 0, 0, :time] = True if mask is None else mask
        self.positions[:rows] = self.mask[:rows, 0, 0].sum(-1, keepdim=True)
        self.uniform[:rows, : uniform.shape[1]] = uniform
        self.column.fill_(time)
        self.drawn.zero_()

    def select(self, keep: Tensor, columns: int) -> None:
        """Move rows to the front; columns: those of the cache that are written."""
        for tensor in self.of_rows:
            tensor[: len(keep)] = tensor[keep]
        for buffer in (buffer for layer in self.layers for buffer in layer):
            buffer[: len(keep), :, :columns] = buffer[keep, :, :columns]

    def cache(self, rows: int, columns: int) -> DynamicCache:
        """Return the front part of the buffers as a model's cache."""
        cache = DynamicCache()
        cache.layers = [
            StaticLayer(keys[:rows, :, :columns], values[:rows, :, :columns], self.column)
            for keys, values in self.layers
        ]
        return cache


class StaticLayer(DynamicLayer):
    """A cache layer that writes one column of fixed buffers, and returns all of them.

    Args:
        keys, values: (rows, heads, columns, width). column: (1,) int64, which is written.
    """

    def __init__(self, keys: Tensor, values: Tensor, column: Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values, self.column = keys, values, column

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the column; returns all keys and values.

        Under autocast the prompts' pass may have left another precision than a step's.
        """
        self.keys.index_copy_(2, self.column, key_states.to(self.keys.dtype))
        self.values.index_copy_(2, self.column, value_states.to(self.values.dtype))
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Refuse: the host has no part in a step, which may be repeated on the device alone."""
        raise ModelError(
            "this model's forward pass asks how long its cache is, which a step of fixed shapes leaves on the device; "
            "use cache_implementation: dynamic"
        )


def room_for(rows: int, time: int, tokens: int) -> Room:
    """Return the room of a batch; time: tokens of its longest prompt."""
    return Room(bucket(rows), bucket(time + tokens, COLUMNS), tokens)


def _buffer(states: Tensor, rows: int, columns: int) -> Tensor:
    return states.new_zeros(rows, states.shape[1], columns, states.shape[3])
