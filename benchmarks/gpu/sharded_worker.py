"""The process that `sharded.py` launches: runs a PPO recipe, and writes which weights were sharded."""

import argparse
import importlib
import os
from pathlib import Path
from typing import Any

import torch
import transformers.trainer
from torch.distributed.fsdp import FSDPModule

from benchmarks.gpu.results import write_json
from recipes.ppo import main as ppo


class Facts(transformers.TrainerCallback):
    """Writes what wraps the model once the first step is done."""

    path: Path  # set before the trainer makes one

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step != 1:
            return
        parameters = list(model.parameters())
        write_json(
            self.path,
            {
                "engine": transformers.trainer.AcceleratorState().distributed_type.value,
                "fsdp_units": sum(isinstance(module, FSDPModule) for module in model.modules()),
                "parameters": len(parameters),
                "parameters_of_zero3": sum(hasattr(parameter, "ds_id") for parameter in parameters),
            },
        )


def main() -> None:
    """Run PPO."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True)
    parser.add_argument("--facts", type=Path, required=True)
    args = parser.parse_args()
    Facts.path = args.facts
    transformers.trainer.DEFAULT_CALLBACKS.append(Facts)
    if not torch.cuda.is_available():
        shard_on_cpu()
    ppo(["--config", args.config])
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def shard_on_cpu() -> None:
    """Have Accelerate shard on a CPU, where it would run plain data parallelism: to try this script."""
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    transformers.training_args.is_torch_bf16_gpu_available = lambda: True  # a CPU has it too
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        backend: Any = importlib.import_module("deepspeed.comm.torch")  # the package's own `torch` is PyTorch
        backend.build_shm_op = lambda: None  # a faster sum of several CPU processes, which a compiler makes in minutes
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)


if __name__ == "__main__":
    main()
