"""Small runs of every stage at one place, ended at chosen file events and started again by the same command."""

import functools
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import yaml

from alignment.manifest import read_manifest
from tests import killing
from tests.distributed.stage import Stage, make_inputs

PATIENCE_SECONDS = 240
TRAINED = ("sft", "reward", "dpo", "ppo")
DATA = {"sft": "sft.jsonl", "reward": "pairs.jsonl", "dpo": "pairs.jsonl"}
# An epoch has four steps: training ends within one, at no multiple of the other numbers, and kills come between logs.
COMMON = {
    "test_split_size": 0.2,
    "max_length": 64,
    "max_steps": 7,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "logging_steps": 2,
    "save_steps": 3,
    "save_total_limit": 2,
    "eval_strategy": "steps",
    "eval_steps": 4,
    "lora_dropout": 0.1,
}
PPO = {
    "total_episodes": 16, "rollout_batch_size": 8, "max_new_tokens": 6, "num_ppo_epochs": 2, "num_mini_batches": 2,
    "per_device_train_batch_size": 2, "learning_rate": 1e-3, "num_sample_generations": 6, "save_steps": 3,
    "save_total_limit": 2, "normalize_scores": "running",
}  # fmt: skip
LABEL = {
    "num_generations": 3, "max_new_tokens": 6, "per_device_eval_batch_size": 2, "max_concurrency": 1,
    "judge": {"kind": "rules", "function": "tests.evaluate.rules:shorter"},
}  # fmt: skip
EVALUATE = {
    "judges": [{"kind": "rules", "name": "shorter", "function": "tests.evaluate.rules:shorter"}],
    "max_new_tokens": 6, "num_examples": 3, "bootstrap_samples": 50, "max_concurrency": 1,
}  # fmt: skip


def write_inputs(folder: Path) -> Path:
    """A base with dropout, demonstrations, pairs, prompts and a reward model."""
    make_inputs(folder, attention_dropout=0.1)
    rows = [{"prompt": f"tell me {number}", "completion": "a b c " * (1 + number % 3)} for number in range(24)]
    (folder / "sft.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": "c", "margin": 1.0} for row in rows]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return folder


def recipe_of(inputs: Path, run: Path, stage: str, **keys: Any) -> dict[str, Any]:
    """A stage's recipe; a key that is None is left out."""
    recipe: dict[str, Any] = {"stage": stage, "output_dir": str(run), "model_name_or_path": str(inputs / "base")}
    recipe["datasets"] = [{"path": str(inputs / DATA.get(stage, "prompts.jsonl"))}]
    if stage == "ppo":
        recipe |= {"reward_model_path": str(inputs / "reward"), **PPO}
    elif stage == "label":
        recipe |= LABEL
    elif stage == "evaluate":
        recipe |= {"candidates": [{"name": "twin", "model_name_or_path": str(inputs / "base")}], **EVALUATE}
    else:
        recipe |= COMMON | ({"lora_dropout": None} if stage == "dpo" else {})
    return {key: value for key, value in (recipe | keys).items() if value is not None}


class Runs:
    """Starts of one command, whose run lies at one place."""

    def __init__(self, inputs: Path, folder: Path, stage: str, **keys: Any) -> None:
        self.folder, self.stage, self.run = folder, stage, folder / "run"
        file = folder / "run.yaml"
        file.write_text(yaml.safe_dump(recipe_of(inputs, self.run, stage, **keys)))
        self.argv = ["--config", str(file)]

    def start(self, at: int | None = None, number: int = signal.SIGKILL) -> tuple[int | None, list[str]]:
        """Start the command; its exit code, and the events that it passed by."""
        log = self.folder / "moments"
        log.unlink(missing_ok=True)
        before = functools.partial(killing.arm, str(self.run), str(log), at, number)
        started = Stage(self.argv, self.folder / "log", stage=self.stage, before=before)
        [process] = started.processes
        process.join(PATIENCE_SECONDS)
        started.kill()
        return process.exitcode, killing.moments_of(log)

    def said(self) -> str:
        return Path(f"{self.folder / 'log'}.0").read_text()[-3000:]

    def straight(self) -> tuple[Path, list[str]]:
        """Run through; the run, moved aside, and its events."""
        code, moments = self.start()
        assert code == 0, self.said()
        return self.run.rename(self.folder / "straight"), moments

    def goes_on_after(self, *moments: int, number: int = signal.SIGKILL) -> list[int | None]:
        """End one start after the other at an event, then run to the end; the exit codes of those that were ended."""
        shutil.rmtree(self.run, ignore_errors=True)
        codes = []
        for at in moments:
            codes.append(self.start(at, number)[0])
            if read_manifest(self.run).get("status") == "finished":
                return codes
        code, _ = self.start()
        assert code == 0, self.said()
        return codes


def last(moments: list[str], kind: str) -> int:
    """The number of the last event that begins so."""
    return max(place for place, moment in enumerate(moments, 1) if moment.startswith(kind))


def some(moments: list[int], count: int) -> list[int]:
    """`count` of the moments, from first to last at like distances."""
    if len(moments) <= count:
        return moments
    return [moments[round(place * (len(moments) - 1) / (count - 1))] for place in range(count)]
