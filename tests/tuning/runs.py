"""Small runs of the stages on stories260K with any tuning method, watched from inside."""

import contextlib
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from alignment.config.schema import ModelKeys
from alignment.policy.base import load_causal_lm, load_sequence_classifier
from recipes import dpo, grpo, ppo, reward, sft

STORIES = Path(__file__).parents[2] / ".." / "shared" / "models" / "stories260K"
MODULES: dict[str, ModuleType] = {"sft": sft, "reward": reward, "dpo": dpo, "ppo": ppo, "grpo": grpo}
IDS = torch.arange(3, 30)[None]
# PEFT's defaults are for large models. Blocks divide stories260K's sizes: 64, 32 and 172 numbers.
FITTING: dict[str, dict[str, Any]] = {
    "bitfit": {"new_biases": True},  # Llama has none
    "c3a": {"block_size": 4},
    "child_tuning_d": {"num_samples": 4},
    "delora": {"delora_lambda": 1},  # a change of norm 15 from the first step gives all prompts one answer
    "fishmask": {"num_samples": 4},
    "fourierft": {"n_frequency": 16},
    "oft": {"oft_block_size": 4},
    "road": {"group_size": 4},
    "shira": {"r": 4},
    "vblora": {"vector_length": 4, "num_vectors": 16},
    "waveft": {"n_frequency": 16},
}
WORDS = ["cat", "dog", "ball", "fox", "bird", "tree", "boy", "girl"]
ROWS = {
    "sft": [{"prompt": f"Once there was a {word}.", "completion": f" The {word} was happy."} for word in WORDS],
    "pairs": [
        {"prompt": f"Once there was a {word}.", "chosen": f" The {word} was happy.", "rejected": " No, no, no."}
        for word in WORDS
    ],
    "prompts": [{"prompt": f"Once there was a {word}."} for word in WORDS],
}
TRAINING = {"max_steps": 2, "per_device_train_batch_size": 4, "max_length": 64, "logging_steps": 1}
SAMPLING = {
    "total_episodes": 8, "rollout_batch_size": 8, "num_mini_batches": 1, "max_new_tokens": 6,
    "per_device_train_batch_size": 4, "num_sample_generations": 0,
}  # fmt: skip
STAGE_KEYS: dict[str, dict[str, Any]] = {
    "sft": TRAINING,
    "reward": TRAINING,
    "dpo": TRAINING,
    "ppo": {**SAMPLING, "num_ppo_epochs": 2},
    "grpo": {**SAMPLING, "num_iterations": 2, "num_generations": 4},
}


@dataclass
class Run:
    """What a stage did."""

    folder: Path
    trained: dict[str, Tensor] = field(default_factory=dict)  # the weights that train, before the first step
    frozen: dict[str, Tensor] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)  # names of weights that differ after the last step
    logits: Tensor | None = None  # at the end
    trainer: Any = None

    def metrics(self, key: str) -> list[float]:
        """Return a metric's values in the order of the steps."""
        lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [row[key] for row in map(json.loads, lines) if key in row]


def recipe_file(folder: Path, stage: str, method: str, name: str, model: Path, keys: dict[str, Any]) -> Path:
    """Write a recipe and its rows; returns its file, whose output folder is `folder / name`."""
    kind = {"sft": "sft", "reward": "pairs", "dpo": "pairs"}.get(stage, "prompts")
    data = folder / f"{kind}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS[kind]), encoding="utf-8")
    given = {
        "stage": stage, "model_name_or_path": str(model), "output_dir": str(folder / name), "eos_token": "<s>",
        "datasets": [{"path": str(data)}], "learning_rate": 1e-3, "save_strategy": "no",
        "use_cpu": True, "peft_method": method, **STAGE_KEYS[stage], **keys,
    }  # fmt: skip
    if FITTING.get(method):
        given["peft_config"] = FITTING[method]
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps(given), encoding="utf-8")
    return file


def run_stage(folder: Path, stage: str, method: str, *, name: str, model: Path, **keys: Any) -> Run:
    """Run a stage's own script in this process and watch it."""
    file = recipe_file(folder, stage, method, name, model, keys)
    with _watched(Run(folder / name)) as run, contextlib.redirect_stdout(io.StringIO()):
        MODULES[stage].main(["--config", str(file)])
    return run


@contextlib.contextmanager
def _watched(run: Run) -> Iterator[Run]:
    """Note the weights before and after a script trains, and the logits of what it saves."""
    train = Trainer.train

    def watched_training(trainer: Any, *given: Any, **keys: Any) -> Any:
        weights = dict(trainer.model.named_parameters())
        before = {name: weight.detach().clone() for name, weight in weights.items()}
        run.trained = {name: before[name] for name, weight in weights.items() if weight.requires_grad}
        run.frozen = {name: before[name] for name, weight in weights.items() if not weight.requires_grad}
        done = train(trainer, *given, **keys)
        run.changed = {name for name, weight in weights.items() if not torch.equal(weight, before[name])}
        run.logits = logits(getattr(trainer.model, "policy_lm", trainer.model))
        run.trainer = trainer
        return done

    Trainer.train = watched_training
    try:
        yield run
    finally:
        Trainer.train = train


@torch.no_grad()
def logits(model: Any) -> Tensor:
    """Return a model's logits of fixed tokens."""
    training = model.training
    found: Tensor = model.eval()(input_ids=IDS).logits.float().clone()
    model.train(training)
    return found


def reloaded(run: Run, stage: str, **keys: Any) -> Tensor:
    """Return the logits of what a run saved."""
    load = load_sequence_classifier if stage == "reward" else load_causal_lm
    given = ModelKeys(model_name_or_path=str(run.folder), dtype="float32", eos_token="<s>", **keys)
    return logits(load(given, trainable=False))


def apart(a: Tensor, b: Tensor) -> float:
    """Return the largest difference; NaN counts as infinite."""
    largest = (a - b).abs().max().item()
    return math.inf if math.isnan(largest) else largest
