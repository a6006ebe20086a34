"""Rows of token ids as tensors with padding at their ends."""

from collections.abc import Sequence

import torch
from torch import Tensor

from alignment.data.masks import IGNORE


def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Return rows as (batch, longest), with `value` at their ends."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


def attended(rows: Sequence[Sequence[int]]) -> Tensor:
    """Return the attention mask of `padded` rows."""
    return padded([[1] * len(row) for row in rows], 0)


def pairs_batch(inputs: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], pad: int) -> dict[str, Tensor]:
    """Return the batch of an encoder-decoder model.

    Args:
        inputs: what the encoder reads of each row. targets: the labels of the decoder.

    Returns: `input_ids` and `attention_mask`, (batch, time), and `labels`, (batch, target time).
    """
    return {
        "input_ids": padded(inputs, pad),
        "attention_mask": attended(inputs),
        "labels": padded(targets, IGNORE),
    }
