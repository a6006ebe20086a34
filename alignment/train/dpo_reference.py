"""DPO's reference is the policy's start: the first loss is ln 2, as both log ratios are 0 (arXiv:2305.18290, eq. 7)."""

import math
from typing import Any

import torch

from alignment.errors import TrainingError

LN_2 = math.log(2)
START_TOLERANCE = 1e-3  # of the first loss


def complete_reference(model: Any) -> None:
    """Copy all of a continued adapter to the reference that TRL made of it.

    PEFT names what LoRA keeps for embeddings `lora_embedding_A.default`; TRL copies names that hold `.default.` alone.
    """
    if "ref" not in getattr(model, "peft_config", {}):
        return
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            parts = name.split(".")
            if "ref" in parts:
                parameter.copy_(parameters[".".join("default" if part == "ref" else part for part in parts)])


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
