"""Run a stage's script on the data of `stages_vs_trl`; the last line printed is one JSON object.

The whole script runs, from reading the recipe to saving the adapter. Started by `stages_vs_trl.py`, once per
repetition.
"""

import argparse
import importlib
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.step_clock import StepClock, stage_arguments

SCRIPTS = {"packed": "sft", "rankings": "reward"}  # where the stage has another name


def recipe_of(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The recipe, as a user would write it."""
    packed = {"packing": True, "max_length": 256} if args.stage == "packed" else {}
    return {
        "stage": SCRIPTS.get(args.stage, args.stage),
        "output_dir": str(folder / "run"),
        "model_name_or_path": args.model,
        "datasets": [{"path": args.data}],
        "peft_method": "lora",
        "lora_r": 16,
        "lora_alpha": 32,
        "num_train_epochs": 1,
        "per_device_train_batch_size": args.batch,
        "learning_rate": 1e-4,
        "save_strategy": "no",
        **packed,
    }


def main() -> None:
    """Train and print."""
    args = stage_arguments(__doc__)
    clock = StepClock()
    with tempfile.TemporaryDirectory() as folder, clock.running():
        recipe = Path(folder) / "recipe.yaml"
        written = recipe_of(args, Path(folder))
        recipe.write_text(json.dumps(written))
        importlib.import_module(f"recipes.{written['stage']}").main(["--config", str(recipe)])
    clock.print_figures("ours", args.work)


if __name__ == "__main__":
    main()
