"""Proxy-tuning: a large model samples as if it had been tuned, by a small pair of models.

https://arxiv.org/abs/2401.08565: logits = base + α (tuned - untuned); α is 1 in the paper's method. Nothing is trained
or saved.
"""

import inspect
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutputWithPast

from alignment.config.schema import ModelKeys, ProxyEntry
from alignment.data.sampled import tokenizer_hash
from alignment.errors import LineageError
from alignment.policy.base import load_causal_lm
from alignment.policy.model_source import resolve_model
from alignment.policy.tokenizer import load_tokenizer
from alignment.policy.weights import weights_hash
from alignment.rollout.cache import with_room
from alignment.rollout.context import context_of


@dataclass(frozen=True, slots=True)
class Caches:
    """The key-value caches of the three models."""

    parts: tuple[Any, Any, Any]

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows only."""
        for part in self.parts:
            part.batch_select_indices(indices)

    def get_seq_length(self) -> int:
        """Return the number of cached tokens."""
        return int(self.parts[0].get_seq_length())


class ProxyTuned(nn.Module):
    """Three causal LMs of one tokenizer that compute as one; the context is the shortest of the three.

    Args:
        base, tuned, untuned: models. alpha: the strength of the change.
    """

    def __init__(self, base: Any, tuned: Any, untuned: Any, alpha: float) -> None:
        super().__init__()
        self.models = nn.ModuleList([base, tuned, untuned])
        self.alpha = alpha
        limits = [context_of(model) for model in (base, tuned, untuned)]
        context = min((limit for limit in limits if limit is not None), default=None)
        self.config = type(base.config).from_dict({**base.config.to_dict(), "max_position_embeddings": context})
        self.eval()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Caches | None = None,
        use_cache: bool = False,
        logits_to_keep: int = 0,
    ) -> CausalLMOutputWithPast:
        """Return logits, (batch, time, vocabulary), and the caches.

        The vocabulary is the smallest of the three: models pad their output layers differently.
        """
        given = {"attention_mask": attention_mask, "position_ids": position_ids, "logits_to_keep": logits_to_keep}
        logits, caches = [], []
        for place, model in enumerate(self.models):
            known = inspect.signature(_innermost(model).forward).parameters
            options = {key: value for key, value in given.items() if key in known and value is not None}
            past = past_key_values.parts[place] if past_key_values is not None else None
            output = model(input_ids=input_ids, past_key_values=past, use_cache=use_cache, **options)
            logits.append(output.logits[:, -logits_to_keep:])
            caches.append(with_room(output.past_key_values) if past is None else output.past_key_values)
        width = min(each.shape[-1] for each in logits)
        base, tuned, untuned = (each[..., :width] for each in logits)
        change = tuned.float() - untuned.float()
        combined = base.float() + self.alpha * change.to(base.device)
        cache: Any = Caches((caches[0], caches[1], caches[2])) if use_cache else None
        return CausalLMOutputWithPast(logits=combined, past_key_values=cache)


def _innermost(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def proxy_tuned(base: Any, keys: ModelKeys, proxy: ProxyEntry) -> ProxyTuned:
    """Load a proxy's pair beside a base; it is held unquantised, whatever the base is.

    Args:
        base: a causal LM. keys: how it was loaded, and from where.

    Raises: LineageError if the tokenizers differ.
    """
    require_one_tokenizer(keys, proxy)
    tuned, untuned = (load_causal_lm(_part(keys, path), trainable=False) for path in (proxy.tuned, proxy.untuned))
    return ProxyTuned(base, tuned, untuned, proxy.alpha)


def require_one_tokenizer(keys: ModelKeys, proxy: ProxyEntry) -> None:
    """Refuse a pair whose tokens are not the base's, before a model is loaded.

    Raises: LineageError.
    """
    own = tokenizer_hash(load_tokenizer(keys))
    for name, path in (("tuned", proxy.tuned), ("untuned", proxy.untuned)):
        found = tokenizer_hash(load_tokenizer(_part(keys, path)))
        if found != own:
            raise LineageError(
                f"proxy.{name} {path} has another tokenizer than {keys.model_name_or_path} ({found[:12]} against "
                f"{own[:12]}), and logits of different tokens cannot be added; name a model with the same tokenizer."
            )


def proxy_identity(keys: ModelKeys, proxy: ProxyEntry) -> dict[str, Any]:
    """Return what a run records of a proxy: hashes of the pair's weights, and alpha."""
    sources = {name: resolve_model(path) for name, path in (("tuned", proxy.tuned), ("untuned", proxy.untuned))}
    hashes = {
        name: [weights_hash(place) for place in (source.base, source.adapter) if place]
        for name, source in sources.items()
    }
    return {**hashes, "alpha": proxy.alpha}


def _part(keys: ModelKeys, path: str) -> ModelKeys:
    return keys.in_floats(model_name_or_path=path, model_revision="main")
