"""A stage that is told to end saves on all processes together, ends with the code that requeues, and loses nothing."""

import os
import signal
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from alignment.manifest import read_manifest
from alignment.run.checkpoints import latest_whole, step_of
from alignment.run.files import read_jsonl
from alignment.run.signals import PREEMPTED
from tests.calls.chat_server import ChatServer, Reply
from tests.distributed import stage as ppo
from tests.distributed.stage import Stage
from tests.distributed.test_kill import PATIENCE_SECONDS, run_through, same
from tests.recipes.test_killed_training import folder, is_time, write  # noqa: F401
from tests.recipes.test_label import alphabetical, openai
from tests.recipes.test_label import write_recipe as write_label_recipe

pytestmark = pytest.mark.timeout(600)
NEVER = {"save_steps": 1_000}  # so that what is saved is saved because of the signal


def told_to_end(stage: Stage, log: Path, number: int, *, after: int, ranks: tuple[int, ...]) -> list[int | None]:
    """Send a signal to some processes once a run has logged a step; returns every process's exit code."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not any(row.get("step", 0) >= after for row in read_jsonl(log)):
        assert time.monotonic() < end
        assert all(process.is_alive() for process in stage.processes), Path(f"{stage.log}.0").read_text()[-3000:]
        time.sleep(0.002)
    for rank in ranks:
        os.kill(stage.processes[rank].pid, number)
    for process in stage.processes:
        process.join(PATIENCE_SECONDS)
    codes = [process.exitcode for process in stage.processes]
    stage.kill()
    return codes


def require_same_end(straight: Path, preempted: Path) -> None:
    files = [file.relative_to(straight) for file in straight.glob("*.safetensors")]
    assert files
    for name in files:
        assert same(load_file(straight / name), load_file(preempted / name)), name
    logs = [read_jsonl(run / "metrics.jsonl") for run in (straight, preempted)]
    kept = [[{k: v for k, v in row.items() if not is_time(k)} for row in log] for log in logs]
    assert kept[0] == kept[1]


@pytest.mark.parametrize(
    ("stage", "keys"),
    [
        (
            "sft",
            {"eval_strategy": "epoch", "eval_steps": None, "load_best_model_at_end": True, "save_strategy": "epoch"},
        ),
        pytest.param("reward", NEVER, marks=pytest.mark.slow),
        pytest.param("dpo", NEVER, marks=pytest.mark.slow),
    ],
)
def test_a_preempted_run_ends_with_the_same_bits(folder, tmp_path, stage, keys):  # noqa: F811
    keys = {"lora_dropout": 0.0 if stage == "dpo" else 0.1, **keys}
    straight, preempted = tmp_path / "straight", tmp_path / "preempted"
    run_through(write(folder, straight, stage, **keys), tmp_path / "straight.log", stage=stage)
    argv = write(folder, preempted, stage, **keys)
    for after, number in ((2, signal.SIGTERM), (7, signal.SIGUSR1)):
        started = Stage(argv, tmp_path / "log", stage=stage)
        assert told_to_end(started, preempted / "metrics.jsonl", number, after=after, ranks=(0,)) == [PREEMPTED]
        saved = latest_whole(preempted)
        assert saved
        assert step_of(saved) >= after
        assert read_manifest(preempted)["status"] == "running"
        said = (tmp_path / "log.0").read_text()
        assert f"ended by {signal.Signals(number).name}; the same command resumes from {saved.name}" in said
        assert "Traceback" not in said
    run_through(argv, tmp_path / "log", stage=stage)
    require_same_end(straight, preempted)


@pytest.mark.distributed
def test_processes_that_are_signalled_at_different_times_save_the_same_step(tmp_path):
    made = ppo.make_inputs(tmp_path)
    straight, preempted = tmp_path / "straight", tmp_path / "preempted"
    run_through(ppo.write_recipe(made, straight, **NEVER), tmp_path / "straight.log", processes=2)
    argv = ppo.write_recipe(made, preempted, **NEVER)
    for after, ranks in ((4, (1,)), (12, (1, 0))):
        started = Stage(argv, tmp_path / "log", processes=2)
        codes = told_to_end(started, preempted / "metrics.jsonl", signal.SIGUSR1, after=after, ranks=ranks)
        assert codes == [PREEMPTED] * 2
        assert step_of(latest_whole(preempted)) > after
    run_through(argv, tmp_path / "log", processes=2)
    require_same_end(straight, preempted)
    assert (straight / "samples.jsonl").read_text() == (preempted / "samples.jsonl").read_text()


def test_labelling_ends_cleanly_and_goes_on(tmp_path, tiny_model_dir):
    def slowly(prompt: str, n: int) -> Reply:
        time.sleep(0.1)
        return alphabetical(prompt)

    with ChatServer(slowly) as server:
        argv = write_label_recipe(tmp_path, tiny_model_dir, openai(server), max_concurrency=1)
        started = Stage(argv, tmp_path / "log", stage="label", MY_KEY="k")
        end = time.monotonic() + PATIENCE_SECONDS
        while sum(server.answered.values()) < 3:
            assert time.monotonic() < end
            time.sleep(0.01)
        os.kill(started.processes[0].pid, signal.SIGTERM)
        started.processes[0].join(PATIENCE_SECONDS)
        assert started.processes[0].exitcode == PREEMPTED
        said = (tmp_path / "log.0").read_text()
        assert "ended by SIGTERM; the same command resumes from where it was" in said
        assert "Traceback" not in said
        before = sum(server.answered.values())
        run_through(argv, tmp_path / "log", stage="label", MY_KEY="k")
        assert read_manifest(tmp_path / "run")["status"] == "finished"
        assert before < sum(server.answered.values())
        assert sum(n > 1 for n in server.answered.values()) <= 1  # the call that was in flight
