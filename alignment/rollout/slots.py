"""Sequences that are decoded together: each has a length of its own, joins at any step, and leaves at any step."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from alignment.errors import ModelError
from alignment.rollout.buckets import COLUMNS, bucket
from alignment.rollout.context import virtual_tokens
from alignment.rollout.grouped_attention import configs_on_cpu, grouped
from alignment.rollout.reading import Reading
from alignment.rollout.steps import StepInputs, innermost, last_logits, longrope_from, takes_ready_mask

State = tuple[Tensor, Tensor]  # keys and values of a layer, (rows, heads, columns, width)


class Sequences(Protocol):
    """Sequences in the order in which they joined, but that the last takes the place of one that leaves."""

    part: int | None  # tokens of a prompt that are read in one pass; None: one whole prompt, for one sequence

    def __len__(self) -> int:
        """Return how many sequences there are."""
        ...

    def join(self, reading: Reading, places: Sequence[int]) -> None:
        """Add a sequence for each of these prompts, which have been read."""
        ...

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Append a token to each sequence; returns the logits of the next tokens, (sequences, vocabulary)."""
        ...

    def leave(self, place: int) -> None:
        """Drop a sequence; the last one takes its place."""
        ...

    def columns(self, longest: int) -> int:
        """Return how many tokens of memory each sequence takes if the longest has so many."""
        ...


def sequences_of(model: nn.Module, part: int) -> "Slots | Apart":
    """Return sequences in one batch if the model's attention allows it, else apart.

    Args:
        part: tokens of a prompt that are read in one pass.
    """
    together = all(
        takes_ready_mask(innermost(one))
        and longrope_from(one) is None
        and not virtual_tokens(innermost(one))
        and not virtual_tokens(one)
        for one in parts_of(model)
    )
    return Slots(model, part) if together else Apart(model)


def parts_of(model: nn.Module) -> list[Any]:
    """Return the models of a proxy, or the model itself."""
    return list(getattr(model, "models", None) or [model])


class Slots:
    """Sequences as the rows of one batch. The keys and values of each begin in column 0.

    A row writes its own next column, and its mask hides the columns after it, so rows of all lengths share a step.
    """

    def __init__(self, model: nn.Module, part: int) -> None:
        self.model, self.part = model, part
        self._configs = configs_on_cpu(parts_of(model))
        self.lengths: list[int] = []
        self._options = last_logits(model, 1)
        self._layers: list[State] = []  # of all parts of the cache, one after the other
        self._shape: list[int] = []  # how many layers each part has
        self._kind: Any = None  # the class of a cache with parts
        self._at = _Place()
        self._cache: tuple[tuple[int, int], Any] | None = None

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self.lengths)

    def join(self, reading: Reading, places: Sequence[int]) -> None:
        """Copy what was read of these prompts into rows of their own."""
        parts = getattr(reading.cache, "parts", None)
        self._kind = type(reading.cache) if parts is not None else None
        caches = list(parts) if parts is not None else [reading.cache]
        states = [_plain(layer) for cache in caches for layer in cache.layers]
        self._shape = [len(cache.layers) for cache in caches]
        first, lengths = len(self.lengths), [reading.lengths[place] for place in places]
        self.lengths += lengths
        self._hold(states)
        for buffers, layer in zip(self._layers, states, strict=True):
            for buffer, state in zip(buffers, layer, strict=True):
                for row, (place, length) in enumerate(zip(places, lengths, strict=True), first):
                    buffer[row, :, :length] = state[place, :, state.shape[2] - length :]

    @torch.no_grad()
    def step(self, tokens: Sequence[int]) -> Tensor:
        """Append a token to each row."""
        rows, columns = len(self.lengths), self.columns(max(self.lengths) + 1)
        self._hold(self._layers)
        device = self._layers[0][0].device
        positions = torch.tensor(self.lengths, device=device).unsqueeze(-1)
        self._at.columns = positions[:, :, None, None]
        with grouped(self._configs):
            output: Any = self.model(
                input_ids=torch.tensor(tokens, device=device).unsqueeze(-1),
                attention_mask=(torch.arange(columns, device=device) <= positions)[:, None, None],
                position_ids=positions,
                past_key_values=self._front(rows, columns),
                use_cache=True,
                **self._options,
            )
        self.lengths = [length + 1 for length in self.lengths]
        logits: Tensor = output.logits[:, -1]
        return logits

    def leave(self, place: int) -> None:
        """Drop a row; the last one is moved to its place."""
        last = len(self.lengths) - 1
        if place != last:
            length = self.lengths[last]
            for buffer in (buffer for layer in self._layers for buffer in layer):
                buffer[place, :, :length] = buffer[last, :, :length]
            self.lengths[place] = self.lengths[last]
        self.lengths.pop()

    def columns(self, longest: int) -> int:
        """Return the columns of the batch if its longest row has so many tokens."""
        return bucket(longest, COLUMNS)

    def _hold(self, like: list[State]) -> None:
        """Have room for all rows and one more column of each.

        Args:
            like: states with the heads, widths and types of the buffers.
        """
        rows, columns = len(self.lengths), self.columns(max(self.lengths) + 1)
        held = self._layers[0][0].shape if self._layers else (0, 0, 0)
        if rows <= held[0] and columns <= held[2]:
            return
        # Of rows and columns only one may be more than is needed: memory is bounded by their product.
        rows, columns, self._cache = bucket(rows), columns, None
        if not self._layers:
            self._layers = [
                (_grown(keys, None, rows, columns), _grown(values, None, rows, columns)) for keys, values in like
            ]
            return
        for place, (keys, values) in enumerate(self._layers):  # one after the other, so that one is held twice
            self._layers[place] = (_grown(keys, keys, rows, columns), _grown(values, values, rows, columns))

    def _front(self, rows: int, columns: int) -> Any:
        """Return the front part of the buffers as a model's cache."""
        if self._cache is None or self._cache[0] != (rows, columns):
            layers = [
                _SlotLayer(keys[:rows, :, :columns], values[:rows, :, :columns], self._at)
                for keys, values in self._layers
            ]
            caches = []
            for count in self._shape:
                cache = DynamicCache()
                cache.layers = layers[:count]
                layers = layers[count:]
                caches.append(cache)
            self._cache = (rows, columns), caches[0] if self._kind is None else self._kind(tuple(caches))
        return self._cache[1]


class Apart:
    """Sequences with caches of their own, decoded one after the other: any model can."""

    part = None

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._inputs: list[StepInputs] = []

    def __len__(self) -> int:
        """Return how many sequences there are."""
        return len(self._inputs)

    def join(self, reading: Reading, places: Sequence[int]) -> None:
        """Take over what was read of one prompt.

        Raises: ModelError if it is to be continued twice, or was read with others.
        """
        if len(reading.lengths) != 1 or len(places) != 1:
            raise ModelError("sequences that are decoded apart are read apart")
        self._inputs.append(reading.inputs)

    @torch.no_grad()
    def step(self, tokens: Sequence[int]) -> Tensor:
        """Append a token to each sequence."""
        device = next(self.model.parameters()).device
        return torch.cat(
            [
                inputs.forward(torch.tensor([[token]], device=device))
                for inputs, token in zip(self._inputs, tokens, strict=True)
            ]
        )

    def leave(self, place: int) -> None:
        """Drop a sequence; the last one takes its place."""
        self._inputs[place] = self._inputs[-1]
        self._inputs.pop()

    def columns(self, longest: int) -> int:
        """Return the tokens of the longest sequence."""
        return longest


class _Place:
    """Where the rows of a batch write: the column of each, (rows, 1, 1, 1) int64."""

    columns: Tensor


class _SlotLayer(DynamicLayer):
    """A cache layer in which each row writes its own column; all columns are returned.

    Args:
        keys, values: (rows, heads, columns, width).
    """

    def __init__(self, keys: Tensor, values: Tensor, at: _Place) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values, self.at = keys, values, at

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write the columns; returns all keys and values."""
        for buffer, states in ((self.keys, key_states), (self.values, value_states)):
            buffer.scatter_(2, self.at.columns.expand_as(states), states.to(buffer.dtype))
        return self.keys, self.values


def _plain(layer: Any) -> State:
    """Return keys and values of a layer that holds all of them.

    Raises: ModelError if it is of another kind.
    """
    if not isinstance(layer, DynamicLayer) or getattr(layer, "is_sliding", False):
        raise ModelError(f"the model's cache has {type(layer).__name__}, whose rows cannot have lengths of their own")
    return layer.keys, layer.values


def _grown(like: Tensor, old: Tensor | None, rows: int, columns: int) -> Tensor:
    buffer = like.new_zeros(rows, like.shape[1], columns, like.shape[3])  # what is masked takes part in sums, times 0
    if old is not None:
        rows, columns = min(rows, old.shape[0]), min(columns, old.shape[2])
        buffer[:rows, :, :columns] = old[:rows, :, :columns]
    return buffer
