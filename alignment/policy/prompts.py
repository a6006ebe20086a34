"""Soft prompts as hooks on the decoder: prompt tuning, P-tuning and prefix tuning with PEFT's encoders and files.

PEFT puts soft prompts in front inside its model's own forward pass, which moves a classifier's score with padding on
the right, drops positions with padding on the left, and cannot checkpoint activations with a prefix. Here the decoder
does it, so that whatever calls the decoder sees the positions that it gave:

- Prompt tuning (https://arxiv.org/abs/2104.08691) and P-tuning (https://arxiv.org/abs/2103.10385): embeddings go in
  front of the inputs, and their positions are cut off the last hidden states.
- Prefix tuning (https://arxiv.org/abs/2101.00190) and P-tuning v2 (https://arxiv.org/abs/2110.07602): keys and values
  travel as a keyword argument to the attention function of each layer. They are in no cache.

Where nothing is padded, logits and gradients are those of PEFT's model.
"""

from collections.abc import Mapping
from typing import Any, cast

import torch
from peft import PeftType, PrefixTuningConfig, PromptTuningConfig
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from alignment.errors import ModelError

EMBEDDINGS = "prompt_embeddings"  # the tensor of a saved soft prompt
WITH_PREFIX = "sdpa_with_prefix"
TYPES = (PeftType.PROMPT_TUNING, PeftType.P_TUNING, PeftType.PREFIX_TUNING)


class SoftPrompt(nn.Module):
    """One soft prompt: PEFT's encoder, and how what it returns is read."""

    def __init__(self, encoder: nn.Module, config: Any, *, layers: int) -> None:
        super().__init__()
        self.encoder, self.layers = encoder, layers
        self.length = int(config.num_virtual_tokens)
        self.is_prefix = config.peft_type == PeftType.PREFIX_TUNING
        self.heads = int(config.num_attention_heads)

    def forward(self) -> Tensor:
        """Return the embeddings, (length, width), or for a prefix all keys and values, (length, 2 · layers · width)."""
        device = next(self.parameters()).device
        encoded: Tensor = self.encoder(torch.arange(self.length, device=device).unsqueeze(0))
        return encoded[0]

    def keys_and_values(self) -> list[tuple[Tensor, Tensor]]:
        """Return each layer's keys and values, (heads, length, head width)."""
        encoded = self()
        parts = encoded.view(self.length, 2 * self.layers, self.heads, -1).permute(1, 2, 0, 3)
        return [(parts[i], parts[i + 1]) for i in range(0, len(parts), 2)]


class Prompts(nn.Module):
    """The soft prompts of a decoder by name; the active one, if any, goes before the inputs.

    Args:
        model: a transformers model. Its decoder gets the hooks.

    Raises: ModelError if it has no decoder.
    """

    decoder: Any

    def __init__(self, model: Any) -> None:
        super().__init__()
        decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
        if decoder is None:
            raise ModelError(
                f"{type(model).__name__} has no decoder to put a soft prompt before; use another peft_method."
            )
        self.__dict__["decoder"] = decoder  # not registered: the decoder holds this module
        self.active: str | None = None
        self._cut = 0
        decoder.soft_prompts = self
        decoder.register_forward_pre_hook(self._before, with_kwargs=True)
        decoder.register_forward_hook(self._after)

    def add(self, name: str, encoder: nn.Module, config: Any) -> SoftPrompt:
        """Add a soft prompt.

        Raises: ModelError if it does not fit the decoder.
        """
        text = self.decoder.config.get_text_config()
        longest = getattr(text, "max_position_embeddings", None)
        if longest is not None and config.num_virtual_tokens >= longest:
            raise ModelError(
                f"num_virtual_tokens is {config.num_virtual_tokens}, and the model's context has {longest} tokens; use "
                "a shorter soft prompt."
            )
        prompt = SoftPrompt(encoder, config, layers=text.num_hidden_layers)
        if prompt.is_prefix:
            self._attend_to_prefixes()
        self.add_module(name, prompt)
        return prompt

    def activate(self, name: str | None) -> None:
        """Put the soft prompt with this name before the inputs; none if there is no such soft prompt."""
        self.active = name if name in self._modules else None

    @property
    def longest(self) -> int:
        """Number of positions that the longest soft prompt takes."""
        return max((int(cast(Any, prompt).length) for prompt in self.children()), default=0)

    def _attend_to_prefixes(self) -> None:
        config = self.decoder.config
        if config._attn_implementation == WITH_PREFIX:
            return
        is_sdpa = str(config._attn_implementation).startswith("sdpa")  # a plan's has a name of its own
        if not is_sdpa or not getattr(self.decoder, "_supports_attention_backend", False):
            raise ModelError(
                f"prefix_tuning needs attn_implementation sdpa, and {type(self.decoder).__name__} computes attention "
                f"by {config._attn_implementation}; set attn_implementation: sdpa, or use prompt_tuning."
            )
        AttentionInterface.register(WITH_PREFIX, attention_with_prefix)
        AttentionMaskInterface.register(WITH_PREFIX, sdpa_mask)
        config._attn_implementation = WITH_PREFIX

    def _before(self, decoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        self._cut = 0
        if self.active is None or getattr(decoder, "soft_prompts_off", False):
            return None
        prompt: Any = self._modules[self.active]
        if args:
            kwargs = {"input_ids": args[0], **kwargs}
        cache = kwargs.get("past_key_values")
        past = 0 if cache is None else int(cache.get_seq_length())
        if prompt.is_prefix:
            return (), _with_prefix(prompt, kwargs, past)
        ids, embeds = kwargs.get("input_ids"), kwargs.get("inputs_embeds")
        embeds = decoder.get_input_embeddings()(ids) if embeds is None else embeds
        if past == 0:
            self._cut = prompt.length
            front = prompt().to(embeds.dtype).expand(len(embeds), -1, -1)
            embeds = torch.cat([front, embeds], dim=1)
        return (), {**kwargs, "input_ids": None, "inputs_embeds": embeds, **_shifted(kwargs, prompt.length, past)}

    def _after(self, decoder: Any, args: Any, output: Any) -> Any:
        if self._cut:
            output.last_hidden_state = output.last_hidden_state[:, self._cut :]
            if output.get("hidden_states") is not None:
                output.hidden_states = tuple(states[:, self._cut :] for states in output.hidden_states)
        return output


def _shifted(kwargs: Mapping[str, Any], length: int, past: int) -> dict[str, Any]:
    """Return mask and positions of inputs behind a soft prompt, whose keys the cache holds after the first pass."""
    mask, positions = kwargs.get("attention_mask"), kwargs.get("position_ids")
    changed: dict[str, Any] = {}
    if mask is not None:
        seen = nn.functional.pad(mask, (length, 0), value=1)
        if mask.dim() == 4 and past == 0:
            rows = torch.ones(length, seen.shape[-1], dtype=mask.dtype, device=mask.device).tril()
            seen = torch.cat([rows.expand(*mask.shape[:2], -1, -1), seen], dim=2)
        changed["attention_mask"] = seen
    if positions is not None:
        moved = positions + length
        if past == 0:
            front = torch.arange(length, device=moved.device).expand(*moved.shape[:-1], -1)
            moved = torch.cat([front, moved], dim=-1)
        changed["position_ids"] = moved
    return changed


def _with_prefix(prompt: SoftPrompt, kwargs: dict[str, Any], past: int) -> dict[str, Any]:
    """Return the decoder's arguments with a prefix; positions count from its end, as in PEFT."""
    given = next(kwargs[key] for key in ("input_ids", "inputs_embeds") if kwargs.get(key) is not None)
    positions = kwargs.get("position_ids")
    if positions is None:
        positions = torch.arange(past, past + given.shape[1], device=given.device).unsqueeze(0)
    return {**kwargs, "position_ids": positions + prompt.length, "prefix": prompt.keys_and_values()}


def attention_with_prefix(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Scaled-dot-product attention with a layer's prefix before its keys and values.

    Args:
        module: the layer's attention. query, key, value: (batch, heads, time, head width).
        options: `prefix`, each layer's keys and values, if there is one; the rest as transformers gives it.
    """
    prefix = options.pop("prefix", None)
    if prefix is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    keys, values = (part.to(key.dtype).expand(len(key), -1, -1, -1) for part in prefix[module.layer_idx])
    length, queries, time = keys.shape[-2], query.shape[-2], key.shape[-2]
    if attention_mask is None and queries > 1:
        attention_mask = torch.ones(queries, time, dtype=torch.bool, device=key.device).tril(time - queries)[None, None]
    if attention_mask is not None:
        free = True if attention_mask.dtype == torch.bool else 0.0
        attention_mask = nn.functional.pad(attention_mask, (length, 0), value=free)
    key, value = torch.cat([keys, key], dim=-2), torch.cat([values, value], dim=-2)
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)


def as_saved(config: Any) -> Any:
    """Return the configuration of a saved soft prompt, whose file holds what its encoder returned, and no encoder."""
    shape = {
        key: getattr(config, key)
        for key in ("task_type", "num_virtual_tokens", "token_dim", "num_transformer_submodules", "num_layers",
                    "num_attention_heads", "modules_to_save")
    }  # fmt: skip
    if config.peft_type == PeftType.PREFIX_TUNING:
        return PrefixTuningConfig(**shape, encoder_hidden_size=config.token_dim)
    return PromptTuningConfig(**shape)


@torch.no_grad()
def start_from_words(model: Any, encoder: Any, config: Any) -> None:
    """Start a new prefix as the keys and values of random words of the vocabulary, as the paper starts from real words.

    PEFT's random numbers are far from what attention has seen.
    """
    weight = encoder.embedding.weight
    if config.peft_type != PeftType.PREFIX_TUNING or config.prefix_projection or config.init_weights or weight.is_meta:
        return
    decoder, table = model.get_decoder(), model.get_input_embeddings().weight
    words = torch.randint(0, table.shape[0], (1, config.num_virtual_tokens)).to(table.device)
    decoder.soft_prompts_off = True
    try:
        cache = decoder(input_ids=words, use_cache=True).past_key_values
    finally:
        del decoder.soft_prompts_off
    parts = [part for layer in cache.layers for part in (layer.keys, layer.values)]  # (1, heads, length, head width)
    weight.copy_(torch.stack([part[0].float() for part in parts]).permute(2, 0, 1, 3).reshape(weight.shape))


@torch.no_grad()
def load_prompt(encoder: Any, weights: Mapping[str, Tensor], role: str) -> None:
    """Load a saved soft prompt into an encoder without layers of its own.

    Raises: ModelError if it does not fit.
    """
    if set(weights) != {EMBEDDINGS}:
        found = ", ".join(sorted(weights)[:3]) or "nothing"
        raise ModelError(
            f"the {role} adapter does not fit the base: a soft prompt is {EMBEDDINGS}, and it holds {found}"
        )
    own, saved = encoder.embedding.weight, weights[EMBEDDINGS]
    if own.shape != saved.shape:
        raise ModelError(
            f"the {role} adapter does not fit the base: {EMBEDDINGS} has size mismatch: {tuple(saved.shape)} saved, "
            f"{tuple(own.shape)} expected"
        )
    own.copy_(saved)
