"""A job on two nodes as Slurm would run it: submitted, told that its time is up, queued again, and done."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from alignment.run.checkpoints import latest_whole
from alignment.run.directory import read_manifest
from alignment.run.files import read_jsonl
from alignment.run.signals import PREEMPTED
from tests.distributed.test_kill import run_through, same
from tests.launch.stand_ins import install
from tests.recipes.test_killed_training import folder, write  # noqa: F401

pytestmark = [pytest.mark.distributed, pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 400
KEYS = {"eval_strategy": "no", "eval_steps": None, "save_steps": 1_000, "lora_dropout": 0.1, "max_steps": 40}


def wait_until(there, log: Path) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not there():
        assert time.monotonic() < end, log.read_text()[-5000:] if log.exists() else "no log"
        time.sleep(0.02)


def test_a_job_on_two_nodes_is_requeued_and_ends_with_the_same_bits(folder, tmp_path):  # noqa: F811
    straight, out, slurm = tmp_path / "straight", tmp_path / "out", tmp_path / "slurm"
    run_through(write(folder, straight, "sft", **KEYS), tmp_path / "straight.log", stage="sft", processes=2)
    _, recipe = write(folder, out, "sft", **KEYS)
    environment = {
        **os.environ,
        "PATH": f"{install(slurm)}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    ask = ["launch", recipe, "--on", "slurm", "--nodes", "2", "--gpus", "1", "--strategy", "cpu", "--submit"]
    done = subprocess.run(
        [sys.executable, "-m", "alignment.cli", *ask], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Submitted batch job 7" in done.stdout
    log = slurm / "job.log"
    wait_until(lambda: any(row["step"] >= 3 for row in read_jsonl(out / "metrics.jsonl")), log)
    os.kill(int((slurm / "batch.pid").read_text()), signal.SIGUSR1)
    wait_until(lambda: (slurm / "codes").exists(), log)
    assert "ended by SIGUSR1; the same command goes on from checkpoint-" in log.read_text()
    saved = latest_whole(out)
    assert saved
    wait_until(lambda: (slurm / "done").exists(), log)
    assert (slurm / "codes").read_text().split() == [str(PREEMPTED), "0"]
    assert read_manifest(out)["status"] == "finished"
    assert "Traceback" not in log.read_text()
    for file in straight.glob("*.safetensors"):
        assert same(load_file(file), load_file(out / file.name)), file.name
