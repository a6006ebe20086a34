"""The whole way through the command line, small: run, skip, kill in PPO and in labelling, resume to the same bits."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from alignment.manifest import read_manifest
from alignment.run.checkpoints import latest_whole
from alignment.run.files import read_jsonl

pytestmark = pytest.mark.timeout(1200)  # the whole way, on a machine that may do other things as well
ROOT = Path(__file__).parents[1]
TINY = ROOT / "recipes" / "tiny"
SIZES = {"demonstrations": 256, "diary": 32, "train_prompts": 32, "heldout_prompts": 8, "heldout_diary": 8}
SMALL = {
    "sft": {"max_steps": 12, "per_device_train_batch_size": 16, "save_steps": 6},
    "label": {"max_new_tokens": 24},
    "label_gold": {"max_new_tokens": 24},
    "reward": {"num_train_epochs": 1},
    "dpo": {"max_steps": 4},
    "ppo": {
        "max_new_tokens": 24, "total_episodes": 96, "rollout_batch_size": 16, "rollout_eval_batch_size": 16,
        "num_mini_batches": 1, "per_device_train_batch_size": 8, "save_steps": 2,
    },
    "evaluate": {"max_new_tokens": 24, "bootstrap_samples": 200, "perplexity_max_tokens": 200},
}  # fmt: skip


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "alignment.cli", *arguments]


def run_command(*arguments: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    """A pipeline of the tiny recipe's own stages with smaller numbers, run once."""
    folder = tmp_path_factory.mktemp("end_to_end")
    tiny = yaml.safe_load((TINY / "pipeline.yaml").read_text())
    for stage in tiny["stages"]:
        if "command" in stage:
            stage["command"] += [word for name, size in SIZES.items() for word in (f"--{name}", str(size))]
        else:
            stage["recipe"] = str(TINY / stage["recipe"])
            stage["overrides"] = SMALL[stage["name"]]
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(tiny))
    done = run_command("run", str(folder / "pipeline.yaml"), "--output_dir", str(folder / "runs"))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def weights(run: Path) -> dict[str, bytes]:
    found = {file.name: load_file(file) for file in run.glob("*.safetensors")}
    assert found, f"{run} holds no weights"
    return {f"{file}:{name}": t.numpy().tobytes() for file, tensors in found.items() for name, t in tensors.items()}


def resolved(pipeline: Path, stage: str, output_dir: Path) -> list[str]:
    """The command of one finished stage, writing elsewhere."""
    recipe = yaml.safe_load((pipeline / "runs" / stage / "recipe.yaml").read_text())
    recipe["output_dir"] = str(output_dir)
    file = output_dir.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(recipe))
    return command(stage, "--config", str(file))


def kill_when(arguments: list[str], ready: Callable[[], bool], sent: signal.Signals = signal.SIGKILL) -> int:
    """Start a command, send it a signal once `ready`, return its exit code."""
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not ready():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(sent)
    return process.wait(timeout=30)


def test_every_number_is_there_under_its_plain_name(pipeline):
    results = json.loads((pipeline / "runs" / "results.json").read_text())
    for candidate in ("dpo", "ppo"):
        for judge in ("careless reader", "gold"):
            rate = results["win_rate"][candidate][judge]
            assert 0 <= rate["low"] <= rate["high"] <= 1
        assert isinstance(results["kl"][candidate], float)
    assert set(results["answer_tokens"]) >= {"sft", "dpo", "ppo"}
    assert set(results["distinct_answers"]) >= {"sft", "dpo", "ppo"}
    assert 0 <= results["reward_accuracy"] <= 1
    assert set(results["seconds"]) >= {"data", "sft", "label", "reward", "dpo", "ppo", "evaluate"}


def test_every_run_is_finished_and_loads_without_the_project(pipeline):
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    for stage in ("sft", "label", "label_gold", "reward", "dpo", "ppo", "evaluate"):
        assert read_manifest(pipeline / "runs" / stage)["status"] == "finished"
    for stage in ("sft", "dpo", "ppo"):
        AutoModelForCausalLM.from_pretrained(pipeline / "runs" / stage)
    AutoModelForSequenceClassification.from_pretrained(pipeline / "runs" / "reward", num_labels=1)
    assert "<html" in next((pipeline / "runs").glob("*.html")).read_text()


def test_a_resolved_recipe_is_a_recipe(pipeline):
    recipes = sorted(str(file) for file in (pipeline / "runs").glob("*/recipe.yaml"))
    assert len(recipes) == 7
    done = run_command("check", *recipes)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_second_run_does_nothing(pipeline):
    before = {file: file.stat().st_mtime_ns for file in (pipeline / "runs").glob("*/manifest.json")}
    done = run_command("run", str(pipeline / "pipeline.yaml"), "--output_dir", str(pipeline / "runs"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert {file: file.stat().st_mtime_ns for file in (pipeline / "runs").glob("*/manifest.json")} == before


def test_ppo_killed_and_started_again_ends_at_the_same_weights(pipeline, tmp_path):
    run = tmp_path / "ppo"
    arguments = resolved(pipeline, "ppo", run)
    assert kill_when(arguments, lambda: latest_whole(run) is not None) == -signal.SIGKILL
    assert read_manifest(run)["status"] == "running"
    again = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert again.returncode == 0, again.stdout + again.stderr
    assert weights(run) == weights(pipeline / "runs" / "ppo")
    steps = [row["step"] for row in read_jsonl(run / "metrics.jsonl") if "score" in row]
    assert steps == sorted(set(steps))


def test_labelling_killed_and_started_again_ends_with_the_same_labels(pipeline, tmp_path, monkeypatch):
    (tmp_path / "slow_judge.py").write_text(
        "import time\n"
        "from recipes.tiny.judge import prefer as quick\n\n\n"
        "def prefer(prompt, first, second):\n"
        f"    open({str(tmp_path / 'asked')!r}, 'a').write(repr((prompt, first, second)) + '\\n')\n"
        "    time.sleep(0.02)\n"
        "    return quick(prompt, first, second)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    run, asked = tmp_path / "label", tmp_path / "asked"
    arguments = [*resolved(pipeline, "label", run), "--judge.function", "slow_judge:prefer", "--max_concurrency", "1"]
    kill_when(arguments, lambda: asked.exists() and len(asked.read_text().splitlines()) >= 20)
    assert not (run / "labels.jsonl").exists()
    again = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert again.returncode == 0, again.stdout + again.stderr

    def labels(folder: Path) -> list[tuple[object, ...]]:
        return [(row["prompt"], row["responses"], row["pairs"]) for row in read_jsonl(folder / "labels.jsonl")]

    assert [row[:2] for row in map(tuple, labels(run))] == [row[:2] for row in labels(pipeline / "runs" / "label")]
    assert labels(run) == labels(pipeline / "runs" / "label")
    questions = asked.read_text().splitlines()
    assert len(questions) - len(set(questions)) <= 1  # the one in flight when it was killed


def test_ctrl_c_ends_within_two_seconds_and_can_be_resumed(pipeline, tmp_path):
    run = tmp_path / "ppo"
    arguments = resolved(pipeline, "ppo", run)
    start = 0.0

    def ready() -> bool:
        nonlocal start
        start = time.monotonic()
        return latest_whole(run) is not None

    assert kill_when(arguments, ready, signal.SIGINT) == 130
    assert time.monotonic() - start < 2.0
    assert read_manifest(run)["status"] == "running"
