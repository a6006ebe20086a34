"""What a run computes in."""

import os
from collections.abc import Mapping
from typing import Any

import torch


def gpu_has_bf16() -> bool:
    """Whether there is a GPU that computes bfloat16 itself; older ones emulate it, slower than float32."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def trains_in_bf16(library: Mapping[str, Any]) -> bool:
    """Whether the Trainer computes in bfloat16.

    Args:
        library: the recipe's keys of the Trainer's own configuration. Where they name no precision, the GPU decides,
            or a launcher's file by `mixed_precision`.
    """
    if os.environ.get("ACCELERATE_MIXED_PRECISION") == "bf16":
        return True
    return bool(library.get("bf16", gpu_has_bf16() and not library.get("fp16", False)))


def computed_in(library: Mapping[str, Any]) -> torch.dtype:
    """The dtype that packed weights are unpacked to for a product."""
    if not torch.cuda.is_available():
        return torch.float32
    if library.get("fp16", False):
        return torch.float16
    return torch.bfloat16 if gpu_has_bf16() else torch.float32
