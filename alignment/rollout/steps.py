"""A model's forward passes while it samples: mask, positions and cache from step to step."""

import inspect
import sys
from typing import Any

import torch
from torch import Tensor, nn

from alignment.rollout.cache import RoomyLayer, with_room


class StepInputs:
    """Keeps mask, positions and cache in step with the tokens given to the model.

    Args:
        mask: (batch, time) bool, False on left padding; None: there is none.
        columns: how many tokens will come after the prompt.
        ready_mask: hand attention its mask ready-made where the model takes one. From (batch, time) transformers makes
            the same mask, but first looks whether anything is masked, and so waits for the device at each step.
    """

    def __init__(self, model: nn.Module, mask: Tensor | None, columns: int, *, ready_mask: bool = False) -> None:
        self.model = model
        self.mask = mask.long() if mask is not None else None
        self.columns = columns
        self.cache: Any = None
        inner = _innermost(model)
        accepted = inspect.signature(inner.forward).parameters
        self.wants_positions = "position_ids" in accepted
        self.options = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self.ready_mask = ready_mask and self.wants_positions and takes_ready_mask(inner)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits of the next token, (batch, vocabulary)."""
        inputs: dict[str, Any] = dict(self.options)
        if self.mask is not None:
            inputs["attention_mask"] = self._ready(input_ids.shape[1]) if self.ready_mask else self.mask
            if self.wants_positions:
                positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
                inputs["position_ids"] = positions[:, -input_ids.shape[1] :]
        output = self.model(input_ids=input_ids, past_key_values=self.cache, use_cache=True, **inputs)
        if self.cache is None:
            self.cache = with_room(output.past_key_values, self.columns)
            layers = getattr(self.cache, "layers", [])
            self.ready_mask = self.ready_mask and all(type(layer) is RoomyLayer for layer in layers)
        else:
            self.cache = output.past_key_values
        if self.mask is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=-1)
        logits: Tensor = output.logits[:, -1]
        return logits

    def _ready(self, queries: int) -> Tensor:
        """The mask of each query, (batch, 1, queries, time) bool: what is no padding and not to the right of it."""
        assert self.mask is not None
        time = self.mask.shape[-1]
        causal = torch.ones(queries, time, dtype=torch.bool, device=self.mask.device).tril(time - queries)
        return causal & self.mask.bool()[:, None, None, :]

    def select(self, keep: Tensor) -> None:
        """Keep only these rows."""
        self.cache.batch_select_indices(keep)
        if self.mask is not None:
            self.mask = self.mask[keep]


def takes_ready_mask(model: Any) -> bool:
    """Whether a transformers model hands a mask of four dimensions on to attention as it is, in every layer.

    It does where its decoder makes one mask by `create_causal_mask` and has no other use for the one it is given. ALiBi
    is made of a mask of two dimensions, and layers with windows need masks of their own.
    """
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    if decoder is None or not hasattr(model, "config"):
        return False
    names = vars(sys.modules[type(decoder).__module__])
    text = model.config.get_text_config()
    kinds = getattr(text, "layer_types", None)
    whole = set(kinds) == {"full_attention"} if kinds else getattr(text, "sliding_window", None) is None
    return (
        whole
        and text._attn_implementation == "sdpa"
        and "create_causal_mask" in names
        and not any("alibi" in name for name in names)
    )


def _innermost(model: nn.Module) -> Any:
    """The transformers model inside PEFT's wrapping, whose signature says what it accepts."""
    unwrap: Any = getattr(model, "get_base_model", None)
    return unwrap() if unwrap is not None else model
