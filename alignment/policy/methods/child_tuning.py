"""Child-tuning, https://arxiv.org/abs/2109.05687: each step changes a part of the weights, the child network.

- **F** (the task-free variant): all weights are trainable, and each step draws a new child network. With M (weights,)
  of Bernoulli(p) the gradient g becomes g ⊙ M / p: its mean is g, its variance (1 - p) / p · g².
- **D** (the task-driven variant): the weights with the most Fisher information are the child network for all of the
  training, see `alignment.policy.methods.fishmask`.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alignment.config.own_methods import ChildTuningKeys


@torch.no_grad()
def mask_gradients(named: Iterable[tuple[str, nn.Parameter]], *, p: float, seed: int, step: int) -> None:
    """Multiply each gradient by a Bernoulli(p) mask over p.

    The masks depend on seed, step and the parameter's name alone: they are the same on every process, and in a run that
    resumes.
    """
    for name, parameter in named:
        if parameter.grad is not None:
            parameter.grad.mul_(bernoulli(parameter.grad, p=p, key=f"{seed} {step} {name}"))


def bernoulli(like: Tensor, *, p: float, key: str) -> Tensor:
    """Draw a mask of 0 and 1/p with mean 1, of the shape, dtype and device of `like`."""
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1
    generator = torch.Generator(device=like.device).manual_seed(number)
    drawn = torch.rand(like.shape, generator=generator, device=like.device) < p
    return drawn.to(like.dtype).div_(p)


def callbacks(model: Any, keys: Any) -> list[TrainerCallback]:
    """Return the callback that masks gradients."""
    return [ChildNetwork(ChildTuningKeys(**keys.fields()).reserve_p, model, seed=keys.seed)]


class ChildNetwork(TrainerCallback):
    """Masks the gradients of each optimizer step, after they are clipped."""

    def __init__(self, reserve_p: float, model: nn.Module, *, seed: int) -> None:
        self.reserve_p, self.model, self.seed = reserve_p, model, seed

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Mask."""
        mask_gradients(self.model.named_parameters(), p=self.reserve_p, seed=self.seed, step=state.global_step)
