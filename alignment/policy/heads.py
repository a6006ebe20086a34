"""Scalar heads: one number per token from the last hidden state of a trunk."""

from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from alignment.errors import ModelError

SCORE_WEIGHT = "score.weight"


class ScalarHead(nn.Module):
    """A float32 linear map to one number, for a trunk of any precision."""

    def __init__(self, width: int, weight: Tensor | None = None) -> None:
        """Start from `weight`, (1, width); None: from zero."""
        super().__init__()
        if weight is not None and tuple(weight.shape) != (1, width):
            raise ModelError(
                f"the reward model's score head has shape {tuple(weight.shape)}, the base's hidden size asks for "
                f"(1, {width}); train the reward model on the same base"
            )
        start = torch.zeros(1, width) if weight is None else weight.detach().clone().float()
        self.weight = nn.Parameter(start)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., width) → (...) float32."""
        with torch.autocast(hidden.device.type, enabled=False):
            return nn.functional.linear(hidden.float(), self.weight.float()).squeeze(-1)


def read_score_weight(adapter: str | Path) -> Tensor:
    """Read the `score` head in the files of a sequence classifier's adapter, (1, width).

    Raises: ModelError if the adapter has none.
    """
    file = Path(adapter) / "adapter_model.safetensors"
    if not file.is_file():
        raise ModelError(f"reward adapter {adapter} has no adapter_model.safetensors; train it with `alignment reward`")
    with safe_open(file, framework="pt") as tensors:
        keys = [key for key in tensors.keys() if key.endswith(SCORE_WEIGHT)]
        if len(keys) != 1:
            raise ModelError(
                f"{adapter} holds {len(keys)} tensors named *.{SCORE_WEIGHT}; a reward adapter has one. "
                "Was it trained as a sequence classifier with one label?"
            )
        weight: Tensor = tensors.get_tensor(keys[0])
    return weight
