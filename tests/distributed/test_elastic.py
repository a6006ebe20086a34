"""torchrun starts workers again where one has died, and they go on from the last whole checkpoint by themselves."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from alignment.manifest import read_manifest
from alignment.run.checkpoints import latest_whole
from alignment.run.files import read_jsonl
from alignment.run.signals import PREEMPTED
from tests.distributed import stage as ppo
from tests.distributed.test_kill import run_through, same
from tests.recipes.test_killed_training import folder, write  # noqa: F401

pytestmark = [pytest.mark.distributed, pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 400
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "3"]
OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
WORKERS = ["alignment.launch.workers", "--config_file", "launch/accelerate/cpu.yaml", "--max_restarts", "3"]


class Launched:
    """Workers under a launcher."""

    def __init__(self, launcher: list[str], arguments: list[str], log: Path, **own: str) -> None:
        self.log = log
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        environment |= own
        command = [sys.executable, "-m", *launcher, *arguments]
        with log.open("ab") as output:
            self.process = subprocess.Popen(command, env=environment, cwd=log.parent, stdout=output, stderr=output)

    def wait_for_step(self, metrics: Path, step: int) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not any(row.get("step", 0) >= step for row in read_jsonl(metrics)):
            assert time.monotonic() < end, self.log.read_text()[-5000:]
            assert self.process.poll() is None, self.log.read_text()[-5000:]
            time.sleep(0.002)

    def kill_a_worker(self) -> None:
        workers = [child for child in psutil.Process(self.process.pid).children() if "--config" in child.cmdline()]
        assert len(workers) == 2
        workers[1].send_signal(signal.SIGKILL)

    def end(self) -> int:
        try:
            return self.process.wait(PATIENCE_SECONDS)
        finally:
            for child in (
                psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
            ):
                child.kill()
            self.process.kill()


@pytest.mark.parametrize(
    ("launcher", "module"), [(TORCHRUN, "-m"), (WORKERS, "--module")], ids=["torchrun", "alignment.launch.workers"]
)
@pytest.mark.parametrize("stage", ["sft", "ppo"])
def test_a_stage_goes_on_where_a_worker_is_killed(folder, tmp_path, launcher, module, stage):  # noqa: F811
    straight, out = tmp_path / "straight", tmp_path / "out"
    if stage == "ppo":
        made = ppo.make_inputs(tmp_path)
        plain, argv = (ppo.write_recipe(made, run) for run in (straight, out))
    else:
        keys = {"eval_strategy": "no", "eval_steps": None, "lora_dropout": 0.1}
        plain, argv = (write(folder, run, stage, **keys) for run in (straight, out))
    run_through(plain, tmp_path / "straight.log", stage=stage, processes=2)
    own = {OWN_STORE: "1"} if launcher is TORCHRUN else {}  # ours sets it by itself
    launched = Launched(launcher, [module, f"recipes.{stage}", *argv], tmp_path / "log", **own)
    launched.wait_for_step(out / "metrics.jsonl", 5)
    launched.kill_a_worker()
    assert launched.end() == 0, (tmp_path / "log").read_text()[-5000:]
    assert read_manifest(out)["status"] == "finished"
    for file in straight.glob("*.safetensors"):
        assert same(load_file(file), load_file(out / file.name)), file.name


def test_a_restart_into_the_dead_workers_store_is_refused(folder, tmp_path):  # noqa: F811
    argv = write(folder, tmp_path / "out", "sft", eval_strategy="no", eval_steps=None)
    launched = Launched([*TORCHRUN[:-1], "1"], ["-m", "recipes.sft", *argv], tmp_path / "log")
    launched.wait_for_step(tmp_path / "out" / "metrics.jsonl", 5)
    launched.kill_a_worker()
    assert launched.end() == 1
    assert f"Start it with {OWN_STORE}=1" in (tmp_path / "log").read_text()
    assert latest_whole(tmp_path / "out")


def test_workers_that_are_signalled_to_end_are_not_started_again(folder, tmp_path):  # noqa: F811
    out = tmp_path / "out"
    argv = write(folder, out, "sft", eval_strategy="no", eval_steps=None, save_steps=1_000, max_steps=400)
    launched = Launched(WORKERS, ["--module", "recipes.sft", *argv], tmp_path / "log")
    launched.wait_for_step(out / "metrics.jsonl", 3)
    worker = next(child for child in psutil.Process(launched.process.pid).children() if "--config" in child.cmdline())
    worker.send_signal(signal.SIGTERM)  # as when another node's launcher was told, and this node's was not
    assert launched.end() == PREEMPTED, (tmp_path / "log").read_text()[-5000:]
    assert latest_whole(out)
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_fault_ends_with_its_own_code(folder, tmp_path):  # noqa: F811
    argv = write(folder, tmp_path / "out", "sft", model_name_or_path=str(tmp_path / "nowhere"))
    launched = Launched(WORKERS[:-2], ["--module", "recipes.sft", *argv], tmp_path / "log")
    assert launched.end() == 1
    said = (tmp_path / "log").read_text()
    assert "process 0 of this node ended with code 1" in said or "process 1 of this node ended with code 1" in said
