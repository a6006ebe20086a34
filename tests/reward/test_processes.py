"""Two processes train as one does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROGRAM = """
import os, sys
from pathlib import Path
import torch
from tests.reward.models.test_trainer import encoded, make_trainer, mixed, weights

model, output = Path(sys.argv[1]), Path(sys.argv[2])
world = int(os.environ.get("WORLD_SIZE", "1"))
trainer = make_trainer(
    model, output.with_suffix(""), encoded(model, mixed(8)), encoded(model, mixed(7)),
    per_device_train_batch_size=2, gradient_accumulation_steps=4 // world, per_device_eval_batch_size=2, max_steps=2,
    optim="sgd", learning_rate=0.5, max_grad_norm=0.0, lr_scheduler_type="constant",
    **({"ddp_backend": "gloo"} if world > 1 else {}),
)
trainer.train()
found = trainer.evaluate()
if trainer.is_world_process_zero():
    logs = [log for log in trainer.state.log_history if "loss" in log]
    numbers = [log[key] for log in logs for key in ("loss", "accuracy")]
    numbers += [found[f"eval_{key}"] for key in ("loss", "accuracy", "prompts")]
    torch.save({"weights": weights(trainer), "numbers": numbers}, output)
"""


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_are_one(tiny_model_dir: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    launchers = {"one": [sys.executable], "two": [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]}
    found = {}
    for name, launcher in launchers.items():
        output = tmp_path / f"{name}.pt"
        command = [*launcher, str(program), str(tiny_model_dir), str(output)]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=240)
        found[name] = torch.load(output)
    assert found["one"]["numbers"] == pytest.approx(found["two"]["numbers"], abs=1e-5)
    for name, weight in found["one"]["weights"].items():
        torch.testing.assert_close(found["two"]["weights"][name.removeprefix("module.")], weight, atol=1e-6, rtol=0)
