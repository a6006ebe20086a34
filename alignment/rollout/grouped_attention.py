"""Attention of one token a row on a CPU, without a copy of keys and values for each query head.

transformers' `sdpa` repeats the keys and values of grouped heads at every step, which on a CPU costs several times what
the attention does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
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
        attention_mask: (batch, 1, queries, time) bool, True for what is attended to.
    Returns: (batch, queries, heads, width), and no weights.
    """
    batch, heads, queries, width = query.shape
    if queries != 1 or attention_mask is None or any(options.get(name) is not None for name in BESIDE):
        usual = ALL_ATTENTION_FUNCTIONS["sdpa"]
        found: tuple[Tensor, Tensor | None] = usual(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **options
        )
        return found
    grouped = query.view(batch, key.shape[1], heads // key.shape[1], width)
    scores = torch.matmul(grouped * (width**-0.5 if scaling is None else scaling), key.transpose(2, 3))
    scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    return torch.matmul(weights, value).view(batch, 1, heads, -1), None


ALL_ATTENTION_FUNCTIONS.register(NAME, grouped_attention)


@contextmanager
def grouped(models: list[Any]) -> Iterator[None]:
    """Have models on a CPU attend by `grouped_attention`; they attended by `sdpa`."""
    configs = [innermost(model).config.get_text_config() for model in models]
    on_cpu = all(next(model.parameters()).device.type == "cpu" for model in models)
    try:
        for config in configs if on_cpu else []:
            config._attn_implementation = NAME
        yield
    finally:
        for config in configs if on_cpu else []:
            config._attn_implementation = "sdpa"
