"""One process of several: does the jobs of a file, each a small PPO run of `tests.train.ppo_runs`."""

import json
import os
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from safetensors.torch import save_file
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from alignment.run.callbacks import WholeCheckpoints
from alignment.train.sharding import full_tensors
from tests.train.ppo_runs import make_trainer


def let_accelerate_shard_on_cpu() -> None:
    """Have Accelerate take this machine for one where it runs FSDP: on CPU it would run plain data parallelism."""
    PartialState._prepare_backend = lambda *_, **__: ("gloo", DistributedType.MULTI_GPU)


def do(job: dict) -> None:
    """Train, and write the trained weights, the log, and what was really run."""
    out = Path(job["out"])
    trainer = make_trainer(Path(job["base"]), out, callbacks=[WholeCheckpoints()], **job.get("keys", {}))
    trainer.train(resume_from_checkpoint=job.get("resume"))
    parameters = dict(trainer.roles.named_parameters())
    held = sum(p.to_local().numel() if isinstance(p, DTensor) else p.numel() for p in parameters.values())
    weights = full_tensors({name: p for name, p in parameters.items() if p.requires_grad})
    numbers = sum(p.ds_numel if hasattr(p, "ds_numel") else p.numel() for p in parameters.values())
    trainer.save_model(str(out / "policy"))
    if trainer.is_world_process_zero():
        save_file(weights, out / job.get("result", "trained.safetensors"))
        (out / "log.json").write_text(json.dumps(trainer.state.log_history))
        facts = {"distributed_type": str(trainer.accelerator.distributed_type.value), "held": held / numbers}
        facts["fsdp_units"] = sum(isinstance(module, FSDPModule) for module in trainer.model_wrapped.modules())
        (out / "facts.json").write_text(json.dumps(facts))
    trainer.accelerator.wait_for_everyone()


if __name__ == "__main__":
    if os.environ.get("ACCELERATE_USE_FSDP") == "true" and "FSDP_AS_IT_IS" not in os.environ:
        let_accelerate_shard_on_cpu()
    for job in json.loads(Path(sys.argv[1]).read_text()):
        do(job)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
