"""A run killed at random moments and started again by the same command ends as one that ran through, to the bit."""

import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from alignment.manifest import read_manifest
from alignment.run.checkpoints import latest_whole, step_of
from alignment.run.files import read_jsonl
from tests.distributed.stage import Stage, make_inputs, write_recipe

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(900)]
PATIENCE_SECONDS = 240
LAST_STEP = 24
TIMES = ("seconds", "tokens_per_second", "peak_memory", "train_runtime", "train_samples", "train_steps", "total_flos")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("kill"))


def run_through(argv, log, **how):
    stage = Stage(argv, log, **how)
    try:
        assert stage.ends_within(PATIENCE_SECONDS), Path(f"{log}.0").read_text()[-3000:]
    finally:
        stage.kill()


def run_with_kills(argv, run, log, *, kills, seed, last_step=LAST_STEP, every=3, **how):
    """Kill `kills` starts, each at a random moment near a random checkpoint to come, then run to the end.

    Returns: the whole checkpoint that each killed start left as the latest, None for none.
    """
    moments, left = random.Random(seed), []
    for _ in range(kills):
        latest = latest_whole(run)
        done = step_of(latest) if latest else 0
        first = 0 if kills > 2 else every
        ahead = [step for step in range(first, last_step, every) if done < step or latest is None][:3]
        awaited = run / f"checkpoint-{moments.choice(ahead)}" if ahead else latest
        stage = Stage(argv, log, **how)
        wait_for(awaited if step_of(awaited) > 0 else run, stage)
        stage.ends_within(moments.uniform(0.0, 0.3))  # while the checkpoint is written, or in the steps after it
        stage.kill()
        latest = latest_whole(run)
        left.append(latest and latest.name)
        if read_manifest(run).get("status") == "finished":
            return left
    run_through(argv, log, **how)
    return left


def wait_for(path, stage):
    end = time.monotonic() + PATIENCE_SECONDS
    while not path.exists() and not stage.ends_within(0.002):
        assert time.monotonic() < end, f"no {path}"


def same(ours, theirs):
    """Whether two things that torch saved are equal to the bit."""
    if isinstance(ours, torch.Tensor):
        return torch.equal(ours, theirs)
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return bool(np.array_equal(ours, theirs)) if isinstance(ours, np.ndarray) else ours == theirs


def require_same_end(straight: Path, killed: Path, last: str) -> None:
    """Compare everything that a run leaves."""
    weights = [*straight.glob("*model.safetensors"), *(straight / last).glob("*.safetensors")]
    assert len(weights) == 3, weights  # the policy, the same in the checkpoint, and there the value
    for file in weights:
        name = file.relative_to(straight)
        assert same(load_file(file), load_file(killed / name)), name
    for name in ("optimizer.pt", "scheduler.pt"):
        assert same(*(torch.load(run / last / name, weights_only=True) for run in (straight, killed))), name
    for file in sorted((straight / last).glob("rng_state*.pth")):
        assert same(*(torch.load(run / last / file.name, weights_only=False) for run in (straight, killed)))
    ends = [torch.load(run / last / "experience.pt", weights_only=True) for run in (straight, killed)]
    for end in ends:
        end["collector"]["last"] = {k: v for k, v in end["collector"]["last"].items() if not k.startswith("seconds")}
        for statistics in end["statistics"]:
            del statistics["started"]
    assert same(*ends)
    logs = [read_jsonl(run / "metrics.jsonl") for run in (straight, killed)]
    kept = [[{k: v for k, v in row.items() if not k.startswith(TIMES)} for row in log] for log in logs]
    assert kept[0] == kept[1]
    assert (straight / "samples.jsonl").read_text() == (killed / "samples.jsonl").read_text()
    assert {path.name for path in straight.iterdir()} == {path.name for path in killed.iterdir()}


@pytest.mark.parametrize(
    ("processes", "kills", "keys"),
    [
        pytest.param(1, 2, {}, id="one-process"),
        pytest.param(2, 2, {}, id="two-processes"),
        pytest.param(1, 12, {"peft_method": "full", "save_total_limit": 1}, id="many", marks=pytest.mark.slow),
        pytest.param(2, 12, {"save_steps": 1}, id="many-two-processes", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_ends_with_the_same_bits(folder, tmp_path, processes, kills, keys):
    run_through(write_recipe(folder, tmp_path / "straight", **keys), tmp_path / "straight.log", processes=processes)
    left = run_with_kills(
        write_recipe(folder, tmp_path / "killed", **keys), tmp_path / "killed", tmp_path / "killed.log",
        kills=kills, seed=processes, processes=processes,
    )  # fmt: skip
    assert len(left) == kills, left
    require_same_end(tmp_path / "straight", tmp_path / "killed", f"checkpoint-{LAST_STEP}")
