"""Lists of token ids to padded tensors."""

from collections.abc import Sequence

import torch


def pad_right(
    sequences: Sequence[Sequence[int]], *, value: int, pad_to_multiple_of: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad on the right.

    Returns: ids, (batch, time) int64, and mask, (batch, time) bool, true on given ids, whatever their value: padding
    that equals EOS hides no EOS. Time is the longest sequence's length, rounded up to `pad_to_multiple_of`.
    """
    longest = max((len(sequence) for sequence in sequences), default=0)
    if pad_to_multiple_of:
        longest = -(-longest // pad_to_multiple_of) * pad_to_multiple_of
    ids = torch.full((len(sequences), longest), value, dtype=torch.long)
    mask = torch.zeros((len(sequences), longest), dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
        mask[row, : len(sequence)] = True
    return ids, mask
