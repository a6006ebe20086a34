"""PPO in one process under ZeRO-3 or FSDP2, as `accelerate launch` starts it with the files of launch/accelerate."""

import importlib.util
import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from alignment.run.files import read_jsonl
from benchmarks.gpu.data import Lengths, write_rows
from benchmarks.gpu.machine import read_json
from benchmarks.gpu.models import SMALL, common_keys, make_reward_adapter, small
from benchmarks.gpu.step import Findings, Place, run_step

ROOT = Path(__file__).resolve().parents[2]
LENGTHS = {"cuda": Lengths(64, 32), "cpu": Lengths(24, 6)}
ROWS = 4


def main(place: Place, found: Findings, variant: str) -> None:
    """Run two updates under `variant`, a launcher's file, and look at what really ran."""
    if variant == "zero3" and importlib.util.find_spec("deepspeed") is None:
        found.skip("deepspeed is not installed")
        return
    write_rows(place.own / "data", LENGTHS[place.device], ROWS)
    make_reward_adapter(place, place.own / "reward")
    facts = place.own / "facts.json"
    launch(place, variant, ["--config", str(write_recipe(place)), "--facts", str(facts)])
    said: dict[str, Any] = read_json(facts)
    found.numbers(**said)
    layers = SMALL[place.device]["num_hidden_layers"]
    if variant == "fsdp2":
        found.check("FSDP units, one for each layer and one for the rest", said["fsdp_units"], least=layers + 1)
    else:
        share = said["parameters_of_zero3"] / said["parameters"]
        found.check("share of parameters that ZeRO-3 holds", share, least=1)
    first = next(row for row in read_jsonl(place.own / "ppo" / "metrics.jsonl") if "kl" in row)
    found.check("first KL", abs(first["kl"]), most=1e-6)
    found.check("first loss is finite", float(math.isfinite(first["loss"])), least=1)


def write_recipe(place: Place) -> Path:
    """PPO of a few steps."""
    lengths = LENGTHS[place.device]
    recipe = {
        **{key: value for key, value in common_keys(place).items() if key != "logging_steps"},
        "stage": "ppo",
        "output_dir": str(place.own / "ppo"),
        "model_name_or_path": str(small(place)),
        "reward_model_path": str(place.own / "reward"),
        "datasets": [{"path": str(place.own / "data" / "prompts.jsonl")}],
        "max_new_tokens": lengths.answer,
        "rollout_batch_size": ROWS,
        "total_episodes": 2 * ROWS,
        "num_ppo_epochs": 1,
        "per_device_train_batch_size": ROWS,
        "num_sample_generations": 0,
        "save_strategy": "no",
    }
    file = place.own / "ppo.yaml"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return file


def launch(place: Place, strategy: str, arguments: list[str]) -> None:
    """Start the worker as a user does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    config = str(ROOT / "launch" / "accelerate" / f"{strategy}.yaml")
    one = ["--num_processes", "1", "--num_machines", "1", "--machine_rank", "0", "--main_process_ip", "127.0.0.1"]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", config, *one]
    command += ["--main_process_port", port, "-m", "benchmarks.gpu.sharded_worker", *arguments]
    on_cpu = {} if place.on_gpu else {"DS_ACCELERATOR": "cpu", "ACCELERATE_TORCH_DEVICE": "cpu"}
    subprocess.run(command, cwd=ROOT, env={**os.environ, **on_cpu}, check=True)


if __name__ == "__main__":
    run_step(main)
