"""The machine: Python, libraries, devices, communication between processes."""

import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from alignment.doctor.findings import Finding, fault, note, ok, warning
from alignment.planner.machine import Machine, machine

OLDEST_PYTHON = (3, 10)
TESTED = {  # versions in constraints.txt, which the tests use
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "trl": "1.16.0",
    "peft": "0.21.2",
    "accelerate": "1.15.0",
    "datasets": "5.2.0",
    "bitsandbytes": "0.50.2",
    "wandb": "0.31.0",
    "deepspeed": "0.19.8",
}


def environment() -> Iterator[Finding]:
    """Check the machine."""
    yield python()
    yield from (library(name) for name in TESTED if name != "deepspeed")  # which only ZeRO needs
    yield from devices()
    yield from communication()


def this_machine(*, gpus: int | None, memory: str | None, strategy: str | None) -> Machine:
    """Describe this machine's devices, or those that the user names.

    Raises: RecipeError as `alignment.planner.machine.machine`.
    """
    import torch

    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    total = f"{torch.cuda.get_device_properties(0).total_memory}" if here else "1GiB"
    return machine(
        gpus=max(1, here) if gpus is None else gpus,
        memory=total if memory is None else memory,
        strategy=strategy,
        cpu=not here and memory is None,
    )


def python() -> Finding:
    """Check the interpreter."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        return fault("Python", f"{version}", f"install Python {'.'.join(map(str, OLDEST_PYTHON))} or newer")
    return ok("Python", version)


def library(name: str) -> Finding:
    """Compare one library with the version that the tests ran with."""
    tested = TESTED[name]
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return fault(name, "is not installed", f"pip install {name}=={tested}")
    release = found.split("+")[0]  # torch appends its build after a plus
    if release == tested:
        return ok(name, found)
    if release.split(".")[:2] == tested.split(".")[:2]:
        return note(name, f"{found}; tested with {tested}")
    return warning(name, f"{found}; tested with {tested}", f"pip install {name}=={tested}, or run the tests: make test")


def devices() -> Iterator[Finding]:
    """Check GPUs and the libraries for them."""
    import torch

    from alignment.policy.precision import gpu_has_bf16

    if not torch.cuda.is_available():
        built = (
            f"this PyTorch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build of PyTorch"
        )
        yield note("GPU", f"none found; {built}. Training runs on the CPU, in float32")
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        found = f"{properties.name}, {total / 2**30:.1f} GiB, {free / 2**30:.1f} free"
        if free < 0.9 * total:
            yield warning(f"GPU {index}", found, "another program uses it; `nvidia-smi` shows which")
        else:
            yield ok(f"GPU {index}", found)
    if gpu_has_bf16():
        yield ok("bf16", "supported")
    else:
        yield warning("bf16", "this GPU does not support it", "set dtype: float32, or fp16: true")
    if importlib.util.find_spec("flash_attn") is None:
        yield note("flash attention", "flash_attn is not installed; PyTorch's own attention is used")
    else:
        yield ok("flash attention", "flash_attn is installed; attn_implementation: flash_attention_2 uses it")


def communication() -> Iterator[Finding]:
    """Check what several processes need."""
    import torch
    from torch import distributed

    if not distributed.is_available():
        yield warning("processes", "this PyTorch has no torch.distributed", "install another build to use several")
        return
    if torch.cuda.is_available() and not distributed.is_nccl_available():
        yield warning("NCCL", "missing, so GPUs cannot communicate", "install PyTorch's CUDA build")
    backends = [name for name in ("gloo", "nccl") if getattr(distributed, f"is_{name}_available")()]
    yield ok("processes", f"torch.distributed with {' and '.join(backends) or 'no backend'}")
    if importlib.util.find_spec("deepspeed") is None:
        yield note("DeepSpeed", "not installed, so no ZeRO", 'to use ZeRO: pip install "alignment-stack[deepspeed]"')
        return
    yield library("deepspeed")
    yield from builds()


def builds() -> Iterator[Finding]:
    """Check for a killed build of DeepSpeed's operators: every later start waits for its lock."""
    from torch.utils.cpp_extension import get_default_build_root

    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())
    for lock in sorted(root.rglob("lock")):
        yield warning(
            "DeepSpeed",
            f"{lock}: {lock.parent.name} is being built, or its build was killed; programs that need it wait forever",
            "remove the file, unless a program is building it now",
        )
