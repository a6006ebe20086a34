"""Recipes of pretraining with tiny models."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import TrainerCallback

import recipes.pretrain

TEXTS = [f"The quick brown fox number {n} jumps over the lazy dog, and asks for {n} stories." for n in range(24)]


class KilledAt(TrainerCallback):
    """Ctrl-C in the middle of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.fixture
def write(tmp_path: Path, tiny_model_dir: Path) -> Callable[..., Path]:
    """Write a recipe that reads `rows`, each a text or a row."""

    def make(rows: Sequence[str | dict[str, Any]] = TEXTS, **keys: Any) -> Path:
        data = tmp_path / "text.jsonl"
        lines = [json.dumps({"text": row} if isinstance(row, str) else row) for row in rows]
        data.write_text("".join(line + "\n" for line in lines))
        recipe = {
            "stage": "pretrain",
            "output_dir": str(tmp_path / "run"),
            "model_name_or_path": str(tiny_model_dir),
            "datasets": [{"path": str(data)}],
            "learning_rate": 1e-2,
            "max_steps": 4,
            "max_length": 64,
            "logging_steps": 1,
            "per_device_train_batch_size": 2,
            "save_strategy": "no",
            **keys,
        }
        file = tmp_path / "pretrain.yaml"
        file.write_text(yaml.safe_dump(recipe))
        return file

    return make


def run(file: Path, **overrides: Any) -> None:
    """Run the stage."""
    argv = ["--config", str(file)]
    for key, value in overrides.items():
        argv += [f"--{key}", str(value)]
    recipes.pretrain.main(argv)


def run_killed(file: Path, monkeypatch: pytest.MonkeyPatch, step: int, **overrides: Any) -> None:
    """Run the stage until it is killed in a step."""
    honest = recipes.pretrain.callbacks_for
    with monkeypatch.context() as patch:
        patch.setattr(recipes.pretrain, "callbacks_for", lambda *given: [*honest(*given), KilledAt(step)])
        with pytest.raises(KeyboardInterrupt):
            run(file, **overrides)


def manifest(folder: Path) -> dict[str, Any]:
    """Return a run's manifest."""
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def losses(folder: Path) -> list[float]:
    """Return the losses that a run logged."""
    logs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [log["loss"] for log in logs if "loss" in log]
