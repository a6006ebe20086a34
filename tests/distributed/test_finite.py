"""Each process checks its part of the weights, and all of them end with the step that broke one."""

import json
from pathlib import Path

import pytest

from tests.distributed.test_stages import LAUNCHERS, inputs, launch, write_recipe  # noqa: F401 # a fixture

pytestmark = [pytest.mark.distributed, pytest.mark.slow, pytest.mark.timeout(1200)]

# A weight without a gradient becomes 0 / (sqrt(0) + 0): LoRA's A in its first step, embeddings that no row has.
BROKEN = {"adam_epsilon": 0.0, "max_grad_norm": 0.0, "lr_scheduler_type": "constant", "save_steps": 1}
STEPS = {"sft": {"max_steps": 1}, "ppo": {"total_episodes": 8, "num_mini_batches": 1}}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_weights_that_are_not_finite_end_all_processes(inputs: Path, tmp_path: Path, launcher: str) -> None:  # noqa: F811
    jobs = []
    for stage, steps in STEPS.items():
        for method in ("lora", "full"):
            keys = {**BROKEN, **steps, "peft_method": method}
            job = write_recipe(inputs, tmp_path / f"{stage}-{method}", stage, processes=2, **keys)
            jobs.append({**job, "may_be_refused": True})
    launch(launcher, jobs, tmp_path / "work", processes=2)
    for job in jobs:
        said = Path(f"{job['out']}.refused").read_text()
        assert "is not finite" in said or "is larger than any float" in said or "not a finite number" in said, said
        assert "step 1" in said
        assert "No checkpoint had been written yet." in said
        out = Path(job["out"])
        assert json.loads((out / "manifest.json").read_text())["status"] == "running"
        assert not list(out.rglob("whole.json"))
