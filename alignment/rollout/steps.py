"""A model's forward passes while it samples: mask, positions and cache from step to step."""

import inspect
import sys
from typing import Any

import torch
from torch import Tensor, nn

from alignment.rollout.cache import RoomyLayer, with_room
from alignment.rollout.context import is_encoder_decoder, text_config


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
        inner = innermost(model)
        self.wants_positions = "position_ids" in inspect.signature(inner.forward).parameters
        self.options = last_logits(model, 1)
        self.ready_mask = ready_mask and self.wants_positions and takes_ready_mask(inner)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits of the next token, (batch, vocabulary)."""
        inputs = self.inputs(input_ids)
        output = self.model(**inputs, past_key_values=self.cache, use_cache=True)
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

    def inputs(self, input_ids: Tensor) -> dict[str, Any]:
        """What the model is called with, but for the cache."""
        inputs: dict[str, Any] = {"input_ids": input_ids, **self.options}
        if self.mask is not None:
            inputs["attention_mask"] = self._ready(input_ids.shape[1]) if self.ready_mask else self.mask
            if self.wants_positions:
                positions = (self.mask.cumsum(-1) - 1).clamp(min=0)
                inputs["position_ids"] = positions[:, -input_ids.shape[1] :]
        return inputs

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


def last_logits(model: nn.Module, positions: int) -> dict[str, int]:
    """The argument by which a model computes logits of only its last positions; {} if it has none."""
    return (
        {"logits_to_keep": positions}
        if "logits_to_keep" in inspect.signature(innermost(model).forward).parameters
        else {}
    )


def left_pad(prompts: list[list[int]], pad_token_id: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Token ids, (batch, time), and what of them is no padding; None if nothing is.

    Without padding the model's causal mask is enough, and cheaper.
    """
    longest = max(map(len, prompts))
    ids = [[pad_token_id] * (longest - len(p)) + p for p in prompts]
    input_ids = torch.tensor(ids, device=device)
    if all(len(p) == longest for p in prompts):
        return input_ids, None
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    return input_ids, torch.arange(longest, device=device) >= (longest - lengths).unsqueeze(-1)


@torch.no_grad()
def next_logits(model: nn.Module, prompts: list[list[int]], pad_token_id: int) -> Tensor:
    """Logits of the token after each prompt, (prompts, vocabulary), computed at no other position."""
    input_ids, mask = left_pad(prompts, pad_token_id, next(model.parameters()).device)
    logits: Tensor = model(**StepInputs(model, mask, 0).inputs(input_ids), use_cache=False).logits[:, -1]
    return logits


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


def longrope_from(model: Any) -> int | None:
    """Return the tokens beyond which a model has LongRoPE's other frequencies at every position; None: it has one set.

    Keys that were rotated with the first set do not fit the second. In transformers (`dynamic_rope_update` in
    modeling_rope_utils.py) the longest row of a batch decides for all of them. https://arxiv.org/abs/2402.13753
    """
    rope = getattr(text_config(innermost(model)), "rope_parameters", None) or {}
    sets = [one for one in (rope, *rope.values()) if isinstance(one, dict) and one.get("rope_type") == "longrope"]
    return min((int(one["original_max_position_embeddings"]) for one in sets), default=None)


def has_encoder(model: nn.Module) -> bool:
    """Return whether a model, or the one inside PEFT's wrapper, is an encoder-decoder model."""
    return is_encoder_decoder(getattr(innermost(model), "config", None))


def innermost(model: nn.Module) -> Any:
    """Return the transformers model inside PEFT's wrapper, whose signature lists what it accepts."""
    unwrap: Any = getattr(model, "get_base_model", None)
    return unwrap() if unwrap is not None else model
