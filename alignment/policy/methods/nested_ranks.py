"""DyLoRA, https://arxiv.org/abs/2210.07558: one LoRA adapter that works at every rank up to its own.

Each step of training samples a rank b from 1 to r, uniformly, and computes with the first b rows of A and the first b
columns of B:

    h = W₀ x + (α / b) B[:, :b] A[:b, :] x

and updates these alone, so that directions are ordered by importance, and a trained adapter can be cut to a lower
rank. With rsLoRA the scale is α / √b. What is saved is a plain LoRA adapter of rank r.

The gradients of the other directions are zero, but Adam would move them all the same, by its averages of earlier
gradients. `unused` returns them, so that a trainer can undo that.

The rank of a step depends on seed and step alone: it is the same on every process, and in a run that resumes.
"""

import math
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class NestedRanks:
    """Lets LoRA layers compute with the first `rank` directions of their adapters.

    Args:
        layers: PEFT's; all of their adapters are cut. while_evaluating: also where a layer is in evaluation mode.
    """

    def __init__(self, layers: Iterable[Any], *, while_evaluating: bool = True) -> None:
        self.rank: int | None = None  # None: every adapter has its own
        self.while_evaluating = while_evaluating
        self._pairs: list[tuple[Tensor, Tensor]] = []  # A (rank, in) and B (out, rank)
        for layer in layers:
            for name, down in layer.lora_A.items():
                down.register_forward_hook(_Cut(self, layer.r[name], _is_rank_stabilised(layer, name)))
                self._pairs.append((down.weight, layer.lora_B[name].weight))
        self.full = max((len(down) for down, _ in self._pairs), default=1)  # the largest rank of an adapter

    @contextmanager
    def at(self, rank: int | None) -> Iterator[None]:
        """Compute at a rank for a while."""
        before, self.rank = self.rank, rank
        try:
            yield
        finally:
            self.rank = before

    def sample(self, *, seed: int, step: int) -> int:
        """Draw the rank of a step, from 1 to `full`, and compute with it from now on."""
        self.rank = random.Random(f"{seed} {step}").randint(1, self.full)
        return self.rank

    def unused(self) -> Iterator[Tensor]:
        """Yield the directions past the rank of all weights that train, as views of them."""
        for down, up in self._pairs:
            if down.requires_grad and self.rank is not None:
                yield down.detach()[self.rank :]
                yield up.detach()[:, self.rank :]


class _Cut:
    """A forward hook on A: sets directions past the rank to zero, and scales the others by r / b or its root."""

    def __init__(self, ranks: NestedRanks, full: int, root: bool) -> None:
        self.ranks, self.full, self.root = ranks, full, root

    def __call__(self, module: nn.Module, _inputs: Any, low: Tensor) -> Tensor:
        rank = self.ranks.rank
        if rank is None or rank >= self.full or not (module.training or self.ranks.while_evaluating):
            return low
        scale = math.sqrt(self.full / rank) if self.root else self.full / rank
        kept = torch.arange(self.full, device=low.device) < rank
        return low * (kept * scale).to(low.dtype)


def _is_rank_stabilised(layer: Any, name: str) -> bool:
    return not math.isclose(layer.scaling[name], layer.lora_alpha[name] / layer.r[name])


def cut_to_rank(weights: dict[str, Tensor], rank: int) -> dict[str, Tensor]:
    """Return the weights of a LoRA adapter with the first `rank` directions of each of its matrices.

    Args:
        weights: as PEFT saves them: A is (r, in), B is (out, r); embeddings have the same shapes.
    """
    found = {}
    for name, weight in weights.items():
        if "lora_A" in name or "lora_embedding_A" in name:
            weight = weight[:rank].contiguous()
        elif ".lora_B.weight" in name or "lora_embedding_B" in name:
            weight = weight[:, :rank].contiguous()
        found[name] = weight
    return found
