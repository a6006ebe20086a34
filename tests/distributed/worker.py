"""One process of several: does the jobs of a file, each a small PPO run of `tests.train.ppo_runs`."""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.train.ppo_runs import make_trainer, trained_weights


def do(job: dict) -> None:
    """Train, and write the trained weights and the log."""
    out = Path(job["out"])
    trainer = make_trainer(Path(job["base"]), out, **job.get("keys", {}))
    trainer.train(resume_from_checkpoint=job.get("resume"))
    weights = trained_weights(trainer)
    if trainer.is_world_process_zero():
        save_file(weights, out / "trained.safetensors")
        (out / "log.json").write_text(json.dumps(trainer.state.log_history))
    trainer.accelerator.wait_for_everyone()


if __name__ == "__main__":
    for job in json.loads(Path(sys.argv[1]).read_text()):
        do(job)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
