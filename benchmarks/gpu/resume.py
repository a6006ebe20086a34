"""PPO that is killed after a checkpoint and started again: how far its end is from that of a run that went through.

Attention is `eager`, since the backward passes of the fused kernels add in an order of their own. On a GPU two runs go
through: where they differ, its kernels are not deterministic, and no less can be asked of a run that was resumed.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from benchmarks.gpu.data import Lengths, write_rows
from benchmarks.gpu.models import common_keys, make_reward_adapter, small
from benchmarks.gpu.step import Findings, Place, run_step

LENGTHS = {"cuda": Lengths(64, 32), "cpu": Lengths(24, 6)}
ROWS, SAVED, LAST = 8, 5, 16  # answers an update; steps at which a checkpoint is written, and in all
MARK = "whole.json"  # the last file of a checkpoint


def main(place: Place, found: Findings, variant: str) -> None:
    """Run, kill, run again, compare."""
    write_rows(place.own / "data", LENGTHS[place.device], ROWS)
    make_reward_adapter(place, place.own / "reward")
    straight = {name: start(place, name) for name in (("straight", "again") if place.on_gpu else ("straight",))}
    killed = start(place, "killed")
    checkpoint = place.own / "killed" / f"checkpoint-{SAVED}"
    while not (checkpoint / MARK).is_file() and killed.poll() is None:
        time.sleep(0.02)
    found.check("ended by itself before the kill", float(killed.poll() is not None), most=0)
    killed.kill()
    killed.wait()
    for process in [*straight.values(), start(place, "killed")]:
        if process.wait():
            sys.exit(f"a PPO run ended with {process.returncode}; its message is above")
    noise = max(difference(place.own / "straight", place.own / name) for name in straight)
    found.numbers(**{"largest difference of runs that went through": noise})
    off = difference(place.own / "straight", place.own / "killed")
    found.check("largest difference after kill and resume", off, most=noise)


def start(place: Place, name: str) -> "subprocess.Popen[bytes]":
    """Start PPO in a process of its own."""
    lengths = LENGTHS[place.device]
    recipe: dict[str, Any] = {
        **{key: value for key, value in common_keys(place).items() if key != "logging_steps"},
        "stage": "ppo",
        "output_dir": str(place.own / name),
        "model_name_or_path": str(small(place)),
        "reward_model_path": str(place.own / "reward"),
        "datasets": [{"path": str(place.own / "data" / "prompts.jsonl")}],
        "attn_implementation": "eager",
        "max_prompt_length": lengths.prompt,
        "max_new_tokens": lengths.answer,
        "rollout_batch_size": ROWS,
        "total_episodes": ROWS * LAST // 4,
        "num_ppo_epochs": 2,
        "num_mini_batches": 2,
        "per_device_train_batch_size": ROWS // 2,
        "num_sample_generations": 0,
        "save_strategy": "steps",
        "save_steps": SAVED,
    }
    file = place.own / f"{name}.yaml"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return subprocess.Popen([sys.executable, "-m", "recipes.ppo", "--config", str(file)])


def difference(one: Path, other: Path) -> float:
    """The largest between two runs' weights: the policy's, and those of the last checkpoint, the value's among them."""
    files = [*one.glob("*.safetensors"), *one.glob(f"checkpoint-{LAST // SAVED * SAVED}/*.safetensors")]
    if len(files) < 3:
        sys.exit(f"{one} holds {len(files)} files of weights; the policy's twice and the value's were expected")
    pairs = [(load_file(file), load_file(other / file.relative_to(one))) for file in files]
    return max(float((a[name].float() - b[name].float()).abs().max()) for a, b in pairs for name in a)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_step(main)
