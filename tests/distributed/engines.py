"""The strategies under which two processes are compared with one, for tests."""

import importlib.util
from pathlib import Path

import pytest

from tests.distributed.launch import FSDP2

HERE = Path(__file__).parent
needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed: pip install '.[deepspeed]'"
)


def environment(engine: str) -> dict[str, str]:
    """Return what `accelerate launch` tells the processes of `ddp`, `fsdp2` or a `zero1` to `zero3`."""
    if engine == "ddp":
        return {}
    if engine == "fsdp2":
        return FSDP2
    return {
        "DS_ACCELERATOR": "cpu",
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(HERE / f"{engine}.json"),
    }


def worst_difference(ours, theirs):
    """Return the largest difference of two sets of weights with the same names."""
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
