"""Every stage that trains, in a process of its own, on a model of a few thousand weights."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.distributed.stage import Stage, make_inputs

STAGES = ("sft", "reward", "dpo", "ppo")
SECONDS = 240  # bounds a hang; a run takes a few


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int | None
    said: str  # both streams

    @property
    def last(self) -> str:
        """The last line."""
        return self.said.strip().splitlines()[-1]


def make_world(folder: Path) -> Path:
    """A base, a reward adapter on it, prompts, demonstrations and pairs."""
    make_inputs(folder)
    rows = [{"prompt": f"tell me {number}", "completion": "a b c " * (1 + number % 3)} for number in range(16)]
    pairs = [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": "c"} for row in rows]
    for name, entries in (("sft", rows), ("reward", pairs), ("dpo", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (folder / "prompts.jsonl").rename(folder / "ppo.jsonl")
    return folder


def write_recipe(world: Path, stage: str, out: Path, **keys: Any) -> list[str]:
    """The arguments of a stage of 6 optimizer steps that saves every 2."""
    recipe: dict[str, Any] = {
        "stage": stage, "output_dir": str(out), "model_name_or_path": str(world / "base"),
        "datasets": [{"path": str(world / f"{stage}.jsonl")}], "per_device_train_batch_size": 2,
        "learning_rate": 1e-3, "save_steps": 2, "save_total_limit": 3,
    }  # fmt: skip
    if keys.get("peft_method") != "full":
        recipe["lora_r"] = 2
    if stage == "ppo":
        recipe |= {"reward_model_path": str(world / "reward"), "normalize_scores": "running", "max_new_tokens": 4}
        recipe |= {"total_episodes": 24, "rollout_batch_size": 8, "num_ppo_epochs": 1, "num_mini_batches": 2}
    else:
        recipe |= {"max_steps": 6, "logging_steps": 1, "max_length": 64}
    out.parent.mkdir(parents=True, exist_ok=True)
    file = out.parent / f"{out.name}.yaml"
    file.write_text(yaml.safe_dump({**recipe, **keys}))
    return ["--config", str(file)]


def run_stage(stage: str, argv: list[str], log: Path) -> Ended:
    """Run a stage to its end."""
    file = Path(f"{log}.0")
    file.unlink(missing_ok=True)
    started = Stage(argv, log, stage=stage)
    process = started.processes[0]
    process.join(SECONDS)
    code = process.exitcode
    started.kill()
    return Ended(code, file.read_text())
