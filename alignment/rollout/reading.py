"""The pass over prompts before their first token, a part at a time."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from alignment.rollout.steps import StepInputs, left_pad


class Reading:
    """Prompts that a model is reading. A long one is read in parts, so that other work can be done between them.

    Args:
        prompts: token ids. part: most tokens of a pass; several prompts, and None, are read in one.
    """

    def __init__(self, model: nn.Module, prompts: Sequence[list[int]], pad_token_id: int, part: int | None) -> None:
        self.lengths = [len(ids) for ids in prompts]
        device = next(model.parameters()).device
        input_ids, mask = left_pad(list(prompts), pad_token_id, device)
        self._parts = list(torch.split(input_ids, part, dim=1)) if part and len(prompts) == 1 else [input_ids]
        self.inputs = StepInputs(model, mask, 0)

    @torch.no_grad()
    def advance(self) -> Tensor | None:
        """Read a part; return the logits of the first tokens, (prompts, vocabulary), after the last."""
        logits = self.inputs.forward(self._parts.pop(0))
        return None if self._parts else logits

    @property
    def cache(self) -> Any:
        """The keys and values of what has been read."""
        return self.inputs.cache
