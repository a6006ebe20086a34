"""A job on two nodes as Slurm would run it: submitted, told that its time is up, queued again, and done."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from alignment.manifest import read_manifest
from alignment.run.checkpoints import latest_whole
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


def submit(place: Path, slurm: Path, recipe: str) -> Path:
    """Launch on two nodes of a stand-in Slurm; returns the job's log."""
    environment = {
        **os.environ,
        "PATH": f"{install(slurm)}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{place}",
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    ask = ["launch", recipe, "--on", "slurm", "--nodes", "2", "--gpus", "1", "--strategy", "cpu", "--submit"]
    done = subprocess.run(
        [sys.executable, "-m", "alignment.cli", *ask], cwd=place, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Submitted batch job 7" in done.stdout
    return slurm / "job.log"


def test_a_job_on_two_nodes_is_requeued_and_ends_with_the_same_bits(folder, tmp_path):  # noqa: F811
    straight, out, slurm = tmp_path / "straight", tmp_path / "out", tmp_path / "slurm"
    run_through(write(folder, straight, "sft", **KEYS), tmp_path / "straight.log", stage="sft", processes=2)
    _, recipe = write(folder, out, "sft", **KEYS)
    log = submit(tmp_path, slurm, recipe)
    wait_until(lambda: any(row["step"] >= 3 for row in read_jsonl(out / "metrics.jsonl")), log)
    os.kill(int((slurm / "batch.pid").read_text()), signal.SIGUSR1)
    wait_until(lambda: (slurm / "codes").exists(), log)
    assert "ended by SIGUSR1; the same command resumes from checkpoint-" in log.read_text()
    saved = latest_whole(out)
    assert saved
    wait_until(lambda: (slurm / "done").exists(), log)
    assert (slurm / "codes").read_text().split() == [str(PREEMPTED), "0"]
    assert read_manifest(out)["status"] == "finished"
    assert "Traceback" not in log.read_text()
    for file in straight.glob("*.safetensors"):
        assert same(load_file(file), load_file(out / file.name)), file.name


def test_a_pipeline_on_two_nodes_trains_on_both_and_does_the_rest_in_one_process(folder, tmp_path):  # noqa: F811
    out, slurm = tmp_path / "runs" / "sft", tmp_path / "slurm"
    out.parent.mkdir()
    write(folder, out, "sft", **KEYS)  # runs/sft.yaml
    (tmp_path / "count.py").write_text(
        "import os, pathlib\npathlib.Path('runs/processes.txt').write_text(os.environ.get('WORLD_SIZE', '1'))\n"
    )
    stages = [
        {"name": "sft", "recipe": "runs/sft.yaml"},
        {"name": "count", "command": ["count"], "outputs": ["runs/processes.txt"]},
    ]
    (tmp_path / "pipeline.yaml").write_text(json.dumps({"name": "two", "output_dir": "runs", "stages": stages}))
    log = submit(tmp_path, slurm, "pipeline.yaml")
    wait_until(lambda: any(row["step"] >= 3 for row in read_jsonl(out / "metrics.jsonl")), log)
    os.kill(int((slurm / "batch.pid").read_text()), signal.SIGUSR1)
    wait_until(lambda: (slurm / "done").exists(), log)
    assert (slurm / "codes").read_text().split() == [str(PREEMPTED), "0"]
    assert "sft: was interrupted, resumes" in log.read_text()
    assert (tmp_path / "runs" / "processes.txt").read_text() == "1"
    manifest = read_manifest(out)
    assert manifest["status"] == "finished"
