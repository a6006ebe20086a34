"""Stages one after the other as from recipes, each a few steps, then `merge`; on a bf16 or an NF4 base."""

import importlib
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from alignment.policy.merge import TOLERANCES, merge
from alignment.run.files import read_jsonl, write_json
from benchmarks.gpu.data import Lengths, write_rows
from benchmarks.gpu.models import common_keys, let_go, small
from benchmarks.gpu.step import Findings, Place, run_step

SIZES = {"cuda": (Lengths(128, 128), 8, 4), "cpu": (Lengths(32, 8), 2, 2)}  # tokens, rows of a step, steps
STAGES = {"others": ("sft", "reward", "kto", "grpo", "rloo")}
DATA = {"sft": "demonstrations", "reward": "pairs", "dpo": "pairs", "kto": "pairs"}
MEASURED = "measured.json"  # what `planned.py` compares with


def main(place: Place, found: Findings, variant: str) -> None:
    """Run the stages."""
    lengths, rows, steps = SIZES[place.device]
    write_rows(place.own / "data", lengths, rows * steps)
    measured: dict[str, dict[str, Any]] = {}
    stages = STAGES.get(variant, ("sft", "reward", "dpo", "ppo"))
    for stage in stages:
        recipe = write_recipe(place, stage, load_in_4bit=variant == "nf4")
        measured[stage] = run_stage(stage, recipe, place)
        write_json(place.own / MEASURED, measured)
        found.numbers(**{stage: measured[stage]})
        check_stage(found, stage, read_jsonl(place.own / stage / "metrics.jsonl"))
    begun = time.perf_counter()
    difference = merge(place.own / stages[-1], place.own / "merged")
    found.numbers(merge={"seconds": time.perf_counter() - begun})
    found.check("merge: largest difference of logits", difference, most=TOLERANCES[torch.bfloat16])


def write_recipe(place: Place, stage: str, **keys: Any) -> Path:
    """Write the recipe of a stage; those after SFT start from its adapter."""
    lengths, rows, steps = SIZES[place.device]
    data = DATA.get(stage, "prompts")
    recipe = {
        **common_keys(place),
        "stage": stage,
        "output_dir": str(place.own / stage),
        "model_name_or_path": str(small(place) if stage == "sft" else place.own / "sft"),
        "datasets": [{"path": str(place.own / "data" / f"{data}.jsonl")}],
        "per_device_train_batch_size": rows,
        "save_strategy": "no",
        **keys,
    }
    if data == "prompts":
        del recipe["logging_steps"]  # it logs once an update
        recipe |= {
            "reward_model_path": str(place.own / "reward"),
            "max_prompt_length": lengths.prompt,
            "max_new_tokens": lengths.answer,
            "rollout_batch_size": 2 * rows,
            "total_episodes": 4 * rows,
            "num_mini_batches": 1,
            "num_sample_generations": 1,
            **({"num_ppo_epochs": 1} if stage == "ppo" else {"num_generations": 4, "beta": 0.1}),
        }
    else:
        recipe |= {"max_length": lengths.prompt + lengths.answer, "max_steps": steps}
    file = place.own / f"{stage}.yaml"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return file


def run_stage(stage: str, recipe: Path, place: Place) -> dict[str, Any]:
    """Run one stage in this process. Returns: seconds, and on a GPU the bytes that its tensors held at most."""
    let_go()
    measured: dict[str, Any] = {}
    if place.on_gpu:
        torch.cuda.init()
        measured["bytes_before"] = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    begun = time.perf_counter()
    importlib.import_module(f"recipes.{stage}").main(["--config", str(recipe)])
    measured["seconds"] = time.perf_counter() - begun
    if place.on_gpu:
        measured["peak_allocated_bytes"] = torch.cuda.max_memory_allocated()
        measured["peak_reserved_bytes"] = torch.cuda.max_memory_reserved()
    return measured


def check_stage(found: Findings, stage: str, rows: list[dict[str, Any]]) -> None:
    """Compare a stage's log with what is known of its first step."""
    logged = [row for row in rows if "loss" in row]
    print(stage, json.dumps(logged), flush=True)
    losses = [row["loss"] for row in logged]
    found.check(f"{stage}: steps whose loss is finite, of all", sum(map(math.isfinite, losses)) / len(losses), least=1)
    if stage == "dpo":  # the policy is the reference: -log sigmoid(0)
        off = abs(losses[0] - math.log(2))
        found.check("dpo: distance of the first loss from ln 2", off, most=1e-3)
    if stage in ("grpo", "ppo", "rloo"):
        first = logged[0]
        if "kl" in first:  # nothing computes the reference without a coefficient
            found.check(f"{stage}: size of the first KL", abs(first["kl"]), most=1e-6)
        off = max(abs(first["ratio_min"] - 1), abs(first["ratio_max"] - 1))
        found.check(f"{stage}: distance of the first ratio from 1", off, most=1e-6)


if __name__ == "__main__":
    run_step(main)
