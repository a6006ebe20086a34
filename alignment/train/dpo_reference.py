"""The reference of DPO and KTO is the policy's start.

The first loss of DPO is ln 2, as both log ratios are 0 (arXiv:2305.18290, eq. 7); the first rewards of KTO are 0.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch._subclasses import FakeTensor

from alignment.errors import TrainingError
from alignment.policy.adapters import expected_warnings

LN_2 = math.log(2)
START_TOLERANCE = 1e-3  # of the first loss
LORA_A = {"lora_A", "lora_embedding_A"}  # PEFT's names of the factors
LORA_B = {"lora_B", "lora_embedding_B"}


@contextmanager
def frozen_reference(model: Any) -> Iterator[None]:
    """Make the adapter that TRL adds for the reference, `ref`, a frozen one that PEFT initialises as any other.

    TRL adds it with the policy's own configuration: AdaLoRA refuses a second adapter that trains, prompts stay
    trainable, and an initialisation that changes the base would change it twice.
    """
    if not hasattr(model, "peft_config"):
        yield
        return
    add = model.add_adapter

    def add_frozen(name: str, config: Any, *args: Any, **options: Any) -> None:
        frozen = copy.deepcopy(config)
        frozen.inference_mode = True
        if hasattr(frozen, "init_lora_weights"):
            frozen.init_lora_weights = True
        with expected_warnings():
            add(name, frozen, *args, **options)

    model.add_adapter = add_frozen
    try:
        yield
    finally:
        del model.add_adapter


@torch.no_grad()
def complete_reference(model: Any) -> None:
    """Copy all of the policy's adapter to the reference's, and freeze it; delete it where the base is the reference.

    TRL copies parameters whose names hold `.default.`, which leaves out those in a `ParameterDict`, buffers, and
    SHiRA's indices, which are neither. Without the adapter `ref`, TRL turns the policy's adapter off.
    """
    if "ref" not in getattr(model, "peft_config", {}):
        return
    if starts_as_base(model):
        remove_reference(model)
        return
    tensors = dict(chain(model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)))
    for name, tensor in tensors.items():
        parts = name.split(".")
        if "ref" in parts:
            tensor.copy_(tensors[".".join("default" if part == "ref" else part for part in parts)])
            tensor.requires_grad_(False)
    for module in model.modules():
        indices = getattr(module, "shira_indices", {})
        if "ref" in indices:
            indices["ref"] = indices["default"].clone()


def starts_as_base(model: Any) -> bool:
    """Whether the policy's adapter is LoRA that adds nothing yet: all that trains is A and B, and each B is zero.

    DoRA has a magnitude besides. Where ZeRO-3 has cut the weights, or there are none, the answer is no.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    last = [p for name, p in trained.items() if not LORA_B.isdisjoint(name.split("."))]
    plain = all(not (LORA_A | LORA_B).isdisjoint(name.split(".")) for name in trained)
    return plain and bool(last) and all(p.numel() > 0 and not isinstance(p, FakeTensor) and not p.any() for p in last)


def remove_reference(model: Any) -> None:
    """Delete the adapter that TRL adds for the reference, where no loss or pass needs it."""
    if "ref" in getattr(model, "peft_config", {}):
        model.delete_adapter("ref")


def require_start(margin: float) -> None:
    """Refuse a policy that is not its own reference before the first step.

    Args:
        margin: mean of βΔ over the first batch of all processes.

    Raises: TrainingError.
    """
    loss = -torch.nn.functional.logsigmoid(torch.tensor(margin, dtype=torch.float64)).item()
    if abs(loss - LN_2) > START_TOLERANCE:
        raise TrainingError(
            f"the first DPO loss is {loss:.4f} and must be ln 2 = {LN_2:.4f} (sigmoid loss of the mean margin): policy "
            "and reference differ before the first step. The model's passes may be random, or depend on the batch; "
            "look at the model's code"
        )


def require_zero_rewards(rewards: Sequence[float]) -> None:
    """Refuse a policy that is not its own reference before the first step of KTO.

    Args:
        rewards: means of βr over good and bad answers of the first batch of all processes.

    Raises: TrainingError.
    """
    odd = [reward for reward in rewards if abs(1 / (1 + math.exp(-reward)) - 0.5) > START_TOLERANCE]
    if odd:
        raise TrainingError(
            f"the first KTO rewards are {odd[0]:.4f} and must be 0: policy and reference differ before the first step. "
            "The model's passes may be random, or depend on the batch; look at the model's code"
        )
