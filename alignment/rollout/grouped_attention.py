"""Attention of one token a row on a CPU, without a copy of keys and values for each query head.

transformers' `sdpa` repeats the keys and values of grouped heads at every step, which on a CPU costs several times what
the attention does. Here the query heads of a group are the queries of one head.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from alignment.rollout.steps import innermost

NAME = "alignment_grouped"
BESIDE = ("softcap", "s_aux", "position_bias")  # arguments that change the scores otherwise


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend as transformers' `sdpa` does.

    Args:
        query: (batch, heads, queries, width). key, value: (batch, groups of heads, time, width).
        attention_mask: (batch, 1, queries, time) bool, True for what is attended to. Others go to `sdpa`.
    Returns: (batch, queries, heads, width), and no weights.
    """
    batch, heads, queries, width = query.shape
    for_all_heads = attention_mask is not None and attention_mask.shape[1] == 1
    if queries != 1 or not for_all_heads or any(options.get(name) is not None for name in BESIDE):
        usual = ALL_ATTENTION_FUNCTIONS["sdpa"]
        found: tuple[Tensor, Tensor | None] = usual(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **options
        )
        return found
    groups = query.reshape(batch, key.shape[1], heads // key.shape[1], width)
    attended = scaled_dot_product_attention(groups, key, value, attn_mask=attention_mask, scale=scaling)
    return attended.reshape(batch, 1, heads, -1), None


ALL_ATTENTION_FUNCTIONS.register(NAME, grouped_attention)


def configs_on_cpu(models: list[Any]) -> list[Any]:
    """Return the configurations for `grouped`; none where a model is on another device."""
    if any(next(model.parameters()).device.type != "cpu" for model in models):
        return []
    return [innermost(model).config.get_text_config() for model in models]


@contextmanager
def grouped(configs: list[Any]) -> Iterator[None]:
    """Have the models of configurations attend by `grouped_attention`; they attended by `sdpa`."""
    try:
        for config in configs:
            config._attn_implementation = NAME
        yield
    finally:
        for config in configs:
            config._attn_implementation = "sdpa"
