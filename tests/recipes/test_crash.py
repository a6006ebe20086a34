"""Checkpoints cut off, disks that are full: what is left of a run is whole, and the same command ends with its bits."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from alignment.manifest import read_manifest
from alignment.run.checkpoints import WHOLE, is_whole, latest_whole, step_of
from alignment.run.files import write_json
from tests.distributed.stage import Stage, make_inputs, write_recipe
from tests.distributed.test_kill import same

pytestmark = pytest.mark.timeout(600)
PATIENCE_SECONDS = 240
PAGE = 4096  # what a tmpfs gives room by
DESCRIPTION_BYTES = 6 * PAGE  # manifest, recipe, metrics and samples, and one more of them being renamed
STAGES = ("sft", "reward", "dpo", "ppo")
KEYS = {
    "test_split_size": 0.2,
    "max_length": 64,
    "max_steps": 8,
    "per_device_train_batch_size": 2,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "save_steps": 2,
    "save_total_limit": 2,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_inputs(tmp_path_factory.mktemp("inputs"))
    rows = [{"prompt": f"tell me {number}", "completion": "a b c " * (1 + number % 3)} for number in range(20)]
    (folder / "sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": "c"} for row in rows]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return folder


def command(inputs: Path, out: Path, stage: str, **keys: object) -> list[str]:
    """The arguments of a short run's command; its recipe stands among the inputs, so that `out` may be on any disk."""
    file = inputs / f"{stage}.yaml"
    if stage == "ppo":
        write_recipe(inputs, inputs / "ppo", total_episodes=32, save_steps=4, save_total_limit=2, **keys)
    else:
        data = "sft.jsonl" if stage == "sft" else "pairs.jsonl"
        recipe = {
            "stage": stage,
            "output_dir": str(out),
            "model_name_or_path": str(inputs / "base"),
            "datasets": [{"path": str(inputs / data)}],
            **KEYS,
            **keys,
        }
        file.write_text(yaml.safe_dump(recipe))
    return ["--config", str(file), "--output_dir", str(out)]


def go(argv: list[str], log: Path, stage: str) -> int:
    """Run the stage to its end; its exit code."""
    started = Stage(argv, log, stage=stage)
    [process] = started.processes
    process.join(PATIENCE_SECONDS)
    started.kill()
    return process.exitcode


def text(log: Path) -> str:
    return Path(f"{log}.0").read_text()


def require_same_weights(straight: Path, other: Path) -> None:
    files = [*straight.glob("*.safetensors")]
    assert files
    for file in files:
        assert same(load_file(file), load_file(other / file.name)), file.name


@pytest.fixture(scope="module")
def straight(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each stage that nothing happened to."""
    folder = tmp_path_factory.mktemp("straight")
    for stage in STAGES:
        assert go(command(inputs, folder / stage, stage), folder / f"{stage}.log", stage) == 0, text(
            folder / f"{stage}.log"
        )
    return {stage: folder / stage for stage in STAGES}


@pytest.mark.parametrize("stage", STAGES)
def test_no_checkpoint_that_lacks_a_byte_is_taken_for_a_whole_one(straight, tmp_path, stage):
    run = tmp_path / "run"
    shutil.copytree(straight[stage], run, ignore=shutil.ignore_patterns("*.jsonl"))
    before, last = sorted(run.glob("checkpoint-*"), key=step_of)
    assert latest_whole(run) == last
    files = [path for path in last.rglob("*") if path.is_file() and path.name != WHOLE]
    assert len(files) >= 6
    for file in files:
        content = file.read_bytes()
        for length in {0, len(content) // 2, len(content) - 1}:
            file.write_bytes(content[:length])
            assert latest_whole(run) == before, f"{file.name} cut to {length}"
        file.unlink()
        assert latest_whole(run) == before, f"no {file.name}"
        file.write_bytes(content)
        assert latest_whole(run) == last
    mark = (last / WHOLE).read_text()
    for length in range(len(mark.rstrip())):
        (last / WHOLE).write_text(mark[:length])
        assert not is_whole(last), mark[:length]


# The two stages that differ most are tried by default.
SOME = [*(pytest.param(stage, marks=pytest.mark.slow) for stage in ("reward", "dpo")), "sft", "ppo"]


@pytest.mark.parametrize("stage", SOME)
def test_a_run_whose_newest_checkpoint_is_cut_ends_with_the_same_bits(inputs, straight, tmp_path, stage):
    run = tmp_path / "run"
    shutil.copytree(straight[stage], run)
    unfinish(run)
    before, last = sorted(run.glob("checkpoint-*"), key=step_of)
    weights = next(last.glob("*.safetensors"))
    os.truncate(weights, weights.stat().st_size - 1)
    assert go(command(inputs, run, stage), tmp_path / "log", stage) == 0, text(tmp_path / "log")
    require_same_weights(straight[stage], run)
    assert is_whole(last)
    assert f"{last}: {weights.name} has " in text(tmp_path / "log")
    assert (run / f"damaged-{last.name}").is_dir()
    assert f"{run}: resumes from {before.name}\n" in text(tmp_path / "log")


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_killed_after_its_last_checkpoint_takes_no_step_more(inputs, straight, tmp_path, stage):
    run = tmp_path / "run"
    shutil.copytree(straight[stage], run)
    unfinish(run)
    assert go(command(inputs, run, stage), tmp_path / "log", stage) == 0, text(tmp_path / "log")
    require_same_weights(straight[stage], run)


def unfinish(run: Path) -> None:
    """Make a finished run one that was killed while its result was written."""
    manifest = {**read_manifest(run), "status": "running"}
    del manifest["finished"]
    write_json(run / "manifest.json", manifest)
    (run / ".saving").mkdir()
    for file in run.glob("*.safetensors"):
        os.truncate(file, 100)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room, made by `mount`."""
    place = tmp_path / "disk"
    place.mkdir()
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    mount = [*root, "mount", "-t", "tmpfs", "-o", "size=16m,mode=0777", "tmpfs", str(place)]
    try:
        made = subprocess.run(mount, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no file system of its own can be mounted here: {error}")
    if made.returncode:
        pytest.skip(f"no file system of its own can be mounted here: {made.stderr.strip()}")
    yield place
    subprocess.run([*root, "umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize(
    ("stage", "share"),
    [
        ("sft", 1.7),
        ("ppo", 1.7),
        *(pytest.param(stage, 1.7, marks=pytest.mark.slow) for stage in ("reward", "dpo")),
        *(pytest.param("sft", share, marks=pytest.mark.slow) for share in (1.02, 1.2, 1.5, 1.9, 1.98, 2.1, 2.4, 2.9)),
        *(pytest.param("ppo", share, marks=pytest.mark.slow) for share in (1.02, 1.3, 1.95, 2.3)),
    ],
)
def test_a_full_disk_is_reported_in_a_line_and_loses_one_checkpoint(
    inputs, straight, small_disk, tmp_path, stage, share
):
    """Room for `share` of a checkpoint's bytes; two of them stay, and a third is written before the first goes."""
    size = sum(-(-file.stat().st_size // PAGE) * PAGE for file in latest_whole(straight[stage]).iterdir())
    ballast = small_disk / "ballast"
    disk = os.statvfs(small_disk)
    ballast.write_bytes(b"\0" * (disk.f_bavail * disk.f_frsize - int(share * size) - DESCRIPTION_BYTES))
    run = small_disk / "run"
    argv = command(inputs, run, stage)
    assert go(argv, tmp_path / "log", stage) == 1, text(tmp_path / "log")
    said = [line for line in text(tmp_path / "log").splitlines() if "no room left" in line]
    assert len(said) == 1
    assert said[0].startswith(str(run))
    assert said[0].endswith("no room left on the disk; free some and run the same command again.")
    assert "Traceback" not in text(tmp_path / "log")
    assert latest_whole(run)
    assert all(map(is_whole, run.glob("checkpoint-*")))
    ballast.unlink()
    assert go(argv, tmp_path / "log", stage) == 0, text(tmp_path / "log")
    require_same_weights(straight[stage], run)
