"""Samples from a plain copy of the policy in bfloat16, with its adapter merged."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from alignment.errors import ModelError
from alignment.rollout.engine import Completion, Sampling
from alignment.rollout.transformers_engine import TransformersEngine


class MergedEngine:
    """Gives the copy the policy's weights before each call, and returns log-probabilities, which differ in rounding.

    The copy's parameters stay where they are, so CUDA graphs are captured once and used in every call.

    Args:
        engine: samples from the copy with log-probabilities.
        weights: names and tensors of the policy as a plain model.
    """

    def __init__(self, engine: TransformersEngine, weights: Callable[[], Iterator[tuple[str, Tensor]]]) -> None:
        self.engine = engine
        self.weights = weights

    @property
    def model(self) -> nn.Module:
        """The copy."""
        return self.engine.model

    def generate(self, prompt_ids: list[list[int]], sampling: Sampling) -> list[Completion]:
        """Sample one answer per prompt with the policy's present weights.

        Raises: ModelError if the weights are not those of the copy's modules.
        """
        self._refresh()
        kind = next(self.model.parameters()).device.type
        with torch.autocast(kind, enabled=False):  # the copy computes in its own type
            return self.engine.generate(prompt_ids, sampling)

    @torch.no_grad()
    def _refresh(self) -> None:
        own = dict(self.model.named_parameters())
        given = []
        for name, tensor in self.weights():
            if name not in own or own[name].shape != tensor.shape:
                raise ModelError(self._wrong(name))
            own[name].copy_(tensor)
            given.append(name)
        missing = own.keys() - given
        if missing:
            raise ModelError(self._wrong(min(missing)))

    def _wrong(self, name: str) -> str:
        return (
            f"the policy cannot be copied as a plain {type(self.model).__name__}: they differ in {name}; use "
            "rollout_engine: transformers"
        )
