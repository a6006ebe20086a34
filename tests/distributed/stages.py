"""One process of several: runs the stages of a file one after the other, as their scripts do.

accelerate launch --config_file launch/accelerate/zero3.yaml … -m tests.distributed.stages JOBS.json
"""

import importlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import transformers.trainer
import transformers.training_args
from torch.distributed.tensor import DTensor

from alignment.errors import AlignmentError
from alignment.manifest import read_manifest
from alignment.run.checkpoints import mark_whole
from tests.distributed.worker import let_accelerate_shard_on_cpu
from tests.hostile.hostile_folders import Touch


class Facts(transformers.TrainerCallback):
    """Writes what really ran: Accelerate's engine, and what share of the weights this process holds."""

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.global_step != 1 or not state.is_world_process_zero:
            return
        parameters = list(model.parameters())
        held = sum(part(p).numel() for p in parameters)
        numbers = sum(p.ds_numel if hasattr(p, "ds_numel") else p.numel() for p in parameters)
        engine = transformers.trainer.AcceleratorState().distributed_type.value
        facts = {"engine": engine, "processes": args.world_size, "held": held / numbers}
        Path(f"{args.output_dir}.facts.json").write_text(json.dumps(facts))


def part(parameter: Any) -> torch.Tensor:
    """What this process keeps of a parameter; small ones ZeRO-3 holds whole beside it until their next update."""
    if isinstance(parameter, DTensor):
        return parameter.to_local()
    return getattr(parameter, "ds_tensor", parameter)


def cut_back(run: Path, *, copy: Path, step: int) -> None:
    """Make `copy` what a kill right after the checkpoint of `step` leaves of a run that went through."""
    shutil.copytree(run, copy)
    for checkpoint in copy.glob("checkpoint-*"):
        if int(checkpoint.name.rpartition("-")[2]) > step:
            shutil.rmtree(checkpoint)
    for file in [*copy.glob("*.safetensors"), *copy.glob("*config.json")]:
        file.unlink()
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))


def plant(run: Path) -> None:
    """Put an object that runs code into each file of an optimizer that DeepSpeed wrote, and mark the files as whole."""
    for checkpoint in run.glob("checkpoint-*"):
        for file in checkpoint.glob("global_step*/*optim_states.pt"):
            found = torch.load(file, weights_only=False)
            torch.save({**found, "planted": Touch(Path(f"{run}.ran"))}, file)
        mark_whole(checkpoint, read_manifest(run)["identifier"])


def main() -> None:
    """Run every job; what ours refuses is written beside the job's folder, and the next job starts."""
    torch.set_num_threads(1)
    transformers.trainer.DEFAULT_CALLBACKS.append(Facts)
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        let_accelerate_shard_on_cpu()
    transformers.training_args.is_torch_bf16_gpu_available = lambda: True  # a CPU has it too
    for job in json.loads(Path(sys.argv[1]).read_text()):
        first = os.environ.get("RANK", "0") == "0"
        if "copy_of" in job and first:
            cut_back(Path(job["copy_of"]), copy=Path(job["out"]), step=3)
            if job.get("planted"):
                plant(Path(job["out"]))
        try:
            importlib.import_module(f"recipes.{job['stage']}").main(["--config", job["recipe"]])
        except AlignmentError as error:
            if first:
                Path(f"{job['out']}.refused").write_text(str(error))
            if not job.get("may_be_refused"):
                raise
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
