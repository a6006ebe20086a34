"""GRPO with dynamic sampling, killed by SIGKILL while it samples, ends with the same bits."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from tests.models import save_tiny_model

ROOT = Path(__file__).parents[2]
calls = 0


def often_equal(prompts, answers):
    """Give the answers to prompts with an even number equal scores; kill this process at call KILL_AT."""
    global calls
    calls += 1
    if calls == int(os.environ.get("KILL_AT", "0")):
        os.kill(os.getpid(), signal.SIGKILL)
    odd = [int(prompt.split()[-1]) % 2 for prompt in prompts]
    return [float(number * len(answer)) for number, answer in zip(odd, answers, strict=True)]


def start(recipe: Path, **environment: str) -> int:
    given = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, "-m", "recipes.grpo", "--config", str(recipe)], env=given, cwd=ROOT, capture_output=True
    ).returncode


@pytest.mark.slow
def test_a_run_killed_between_two_rollouts_of_an_update_ends_with_the_same_bits(tmp_path):
    save_tiny_model(tmp_path / "sft", initializer_range=0.3)
    rows = [{"prompt": f"tell me {number}"} for number in range(20)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "stage": "grpo", "model_name_or_path": str(tmp_path / "sft"),
        "datasets": [{"path": str(tmp_path / "prompts.jsonl")}],
        "scorers": [{"kind": "function", "function": f"{__name__}:often_equal"}], "total_episodes": 48,
        "rollout_batch_size": 16, "num_generations": 4, "dynamic_sampling": True, "max_new_tokens": 6,
        "per_device_train_batch_size": 4, "num_mini_batches": 2, "save_steps": 1, "learning_rate": 1e-3, "lora_r": 4,
    }  # fmt: skip
    ends = {}
    for name in ("straight", "killed"):
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump({**recipe, "output_dir": str(tmp_path / name)}))
        if name == "killed":
            # call 1 tries the function; each update needs two rollouts or more, so that the 5th call is inside of one
            assert [start(file, KILL_AT=str(call)) for call in (3, 5)] == [-signal.SIGKILL] * 2
        assert start(file) == 0
        ends[name] = load_file(tmp_path / name / "adapter_model.safetensors")
    logs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ends]
    rollouts = [[json.loads(line).get("rollouts_sampled") for line in log] for log in logs]
    assert rollouts[0] == rollouts[1]
    assert max(number or 0 for number in rollouts[0]) > 1
    assert ends["straight"].keys() == ends["killed"].keys()
    assert all((ends["killed"][key] == tensor).all() for key, tensor in ends["straight"].items())
