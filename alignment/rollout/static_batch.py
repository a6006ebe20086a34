"""Decoding with fixed shapes: rows and columns in buckets, all state on the device, one CUDA graph for each bucket."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicLayer

from alignment.errors import ModelError, first_line
from alignment.rollout.batch import Drawn, on_host
from alignment.rollout.buckets import COLUMNS, bucket
from alignment.rollout.context import virtual_tokens
from alignment.rollout.engine import Sampling
from alignment.rollout.graphs import Capture, Graphs, capture_for
from alignment.rollout.sampling import draw, draw_with_logp
from alignment.rollout.static_memory import Room, State, StaticMemory, room_for
from alignment.rollout.steps import StepInputs, innermost, takes_ready_mask


def why_not_static(model: nn.Module) -> str | None:
    """Return why a model cannot decode with fixed shapes; None if it can, as far as its class and configuration tell.

    A step is one token a row: its mask has four dimensions, and its position and column are on the device.
    """
    inner = innermost(model)
    if virtual_tokens(inner):
        return "it has a soft prompt"
    if "position_ids" not in inspect.signature(inner.forward).parameters:
        return f"{type(inner).__name__} takes no position_ids"
    if not takes_ready_mask(inner):
        return (
            f"{type(inner).__name__} makes its own attention masks, as for sliding windows and ALiBi, or "
            "attn_implementation is not sdpa"
        )
    return None


def static_decoder(model: nn.Module) -> "StaticDecoder":
    """Return what decodes a model with fixed shapes, by CUDA graphs where it is on a GPU.

    Raises: ModelError if the model cannot.
    """
    require_static(model)
    return StaticDecoder(model, capture_for(next(model.parameters()).device))


def require_static(model: nn.Module) -> None:
    """Refuse a model that cannot decode with fixed shapes.

    Raises: ModelError.
    """
    why = why_not_static(model)
    if why is not None:
        raise ModelError(
            f"cache_implementation is static, and the model cannot decode with fixed shapes: {why}; use "
            "cache_implementation: dynamic"
        )


@torch.no_grad()
def try_step(model: nn.Module) -> None:
    """Run the prompts' pass and one step of a model on the meta device, where nothing on a device can be read.

    Raises: ModelError if the model asks for a number that only the device has, or its cache is not plain.
    """
    ids = torch.zeros(1, 2, dtype=torch.long, device="meta")
    try:
        layers = _plain_layers(model(input_ids=ids, use_cache=True).past_key_values)
        memory = StaticMemory(layers, room_for(1, 2, 2))
        _next_logits(model, memory, 1, memory.room.columns, {})
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"cache_implementation is static, and a step of the model needs numbers on the host: {first_line(error)}; "
            "use cache_implementation: dynamic"
        ) from error


class StaticDecoder:
    """Keeps the memory and the graphs that batches of one model use one after the other.

    Args:
        capture: how a step is captured; None: every step is run by the host.
    """

    def __init__(self, model: nn.Module, capture: Capture | None) -> None:
        self.model = model
        self.graphs = Graphs(capture)
        self.memory: StaticMemory | None = None

    def memory_for(self, layers: list[State], room: Room) -> StaticMemory:
        """Return the memory; it grows where a batch needs more, and the graphs are captured anew then."""
        if self.memory is None or not self.memory.room.holds(room):
            room = room.joined(None if self.memory is None else self.memory.room)
            self.free()
            self.memory = StaticMemory(layers, room)
        return self.memory

    def free(self) -> None:
        """Give memory and graphs back."""
        self.graphs.clear()
        self.memory = None


class StaticBatch:
    """A batch of fixed shapes. Rows are filled up to their bucket; what the filling draws is never read.

    Args:
        mask: (rows, time) bool, False on left padding; None: there is none.
        uniform: (rows, max_new_tokens) float64. ready_mask: see `StepInputs`, of the prompts' pass.
        with_logp: keep the tokens' log-probabilities.

    Raises: ModelError if the model's cache is not plain.
    """

    def __init__(
        self,
        decoder: StaticDecoder,
        input_ids: Tensor,
        mask: Tensor | None,
        sampling: Sampling,
        uniform: Tensor,
        *,
        ready_mask: bool,
        with_logp: bool,
    ) -> None:
        self.decoder, self.sampling, self.with_logp = decoder, sampling, with_logp
        self.real, self.time = input_ids.shape
        self.rows = bucket(self.real)
        self.steps = self.read_steps = 0
        prompts = StepInputs(decoder.model, mask, 0, ready_mask=ready_mask)
        output: Any = decoder.model(**prompts.inputs(input_ids), use_cache=True)
        self._options, self._first = prompts.options, output.logits[:, -1]
        layers = _plain_layers(output.past_key_values)
        room = room_for(self.real, self.time, sampling.max_new_tokens)
        self.memory = decoder.memory_for(layers, room)
        self.memory.begin(layers, mask, uniform)

    def step(self) -> None:
        """Draw the next token of each row: the first from the prompts' logits."""
        if self.steps == 0:
            self._draw(self._first, self.real)
            del self._first
        else:
            rows, columns = self.rows, bucket(self.time + self.steps, COLUMNS)
            key = (rows, columns, self.sampling.temperature, self.sampling.top_p, self.sampling.top_k)
            self.decoder.graphs.run(key, lambda: self._forward(rows, columns))
        self.steps += 1

    def _forward(self, rows: int, columns: int) -> None:
        self._draw(_next_logits(self.decoder.model, self.memory, rows, columns, self._options), rows)

    def _draw(self, logits: Tensor, rows: int) -> None:
        memory = self.memory
        uniform = memory.uniform[:rows].index_select(1, memory.drawn).squeeze(1)
        if self.with_logp:
            tokens, logp = draw_with_logp(logits, self.sampling, uniform)
            memory.logp[:rows].index_copy_(1, memory.drawn, logp.unsqueeze(-1))
        else:
            tokens = draw(logits, self.sampling, uniform)
        memory.input_ids[:rows] = tokens.unsqueeze(-1)
        memory.tokens[:rows].index_copy_(1, memory.drawn, tokens.unsqueeze(-1))
        memory.drawn += 1

    def read(self) -> Drawn:
        """Return what the rows drew since the last time."""
        new = slice(self.read_steps, self.steps)
        self.read_steps = self.steps
        logp = self.memory.logp[: self.real, new] if self.with_logp else None
        return on_host(self.memory.tokens[: self.real, new], logp)

    def worth_dropping(self, rows: int, live: int) -> bool:
        """Whether the live rows fit a smaller bucket."""
        return bucket(live) < self.rows

    def select(self, places: list[int]) -> None:
        """Keep only these rows, filled up to their bucket with the first of them."""
        self.real, self.rows = len(places), bucket(len(places))
        filled = [*places, *[places[0]] * (self.rows - self.real)]
        columns = min(bucket(self.time + self.steps, COLUMNS), self.memory.room.columns)
        self.memory.select(torch.tensor(filled, device=self.memory.column.device), columns)


def _next_logits(model: nn.Module, memory: StaticMemory, rows: int, columns: int, options: dict[str, int]) -> Tensor:
    """Run one step, and return the logits of each row's next token, (rows, vocabulary)."""
    mask = memory.mask[:rows, :, :, :columns]
    mask.index_fill_(3, memory.column, True)
    output: Any = model(
        input_ids=memory.input_ids[:rows],
        attention_mask=mask,
        position_ids=memory.positions[:rows],
        past_key_values=memory.cache(rows, columns),
        use_cache=True,
        **options,
    )
    memory.positions += 1
    memory.column += 1
    logits: Tensor = output.logits[:, -1]
    return logits


def _plain_layers(cache: Any) -> list[State]:
    """Keys and values of each layer.

    Raises: ModelError if a layer is of another kind: a window, a state, quantised.
    """
    layers = list(getattr(cache, "layers", []))
    other = [type(layer).__name__ for layer in layers if type(layer) is not DynamicLayer]
    if other or not layers:
        raise ModelError(
            f"cache_implementation is static, and the model's cache has {other[0] if other else 'no layers'}, which "
            "has no fixed shape here; use cache_implementation: dynamic"
        )
    return [(layer.keys, layer.values) for layer in layers]
