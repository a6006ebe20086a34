"""What `torch_compile: true` costs and gains on the CPU: seconds until steps are fast, and seconds of a step.

    python -m benchmarks.compiling [--stages sft dpo] [--steps 16]

stories260K with LoRA of rank 8, 8 rows (or pairs) a step, float32, one thread. Each run is a process of its own with an
empty cache of compiled code. A step's time is the median of the run's second half; compiling is what all steps took
beyond it. Batches differ in length, so the first steps compile for fixed shapes, and the next for any.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.workload import SHARED

STORIES = SHARED / "data" / "tinystories" / "stories_train.jsonl"
ROWS = 256


def main() -> None:
    """Measure each stage plainly and compiled, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", nargs="+", choices=("sft", "dpo"), default=["sft", "dpo"])
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--one", type=Path, help="a recipe: train in this process, and print its steps' times")
    args = parser.parse_args()
    if args.one is not None:
        _train(args.one)
        return
    print("| stage | `torch_compile` | compiling, CPU s | compiling, wall s | a step, CPU ms | a step, wall ms |")
    print("|---|---|---|---|---|---|")
    for stage in args.stages:
        for compiled in (False, True):
            found = _measured(stage, args.steps, compiled)
            row = [_beyond(found[kind]) if compiled else 0.0 for kind in ("cpu", "wall")]
            steps = [1000 * _median(found[kind]) for kind in ("cpu", "wall")]
            cells = [f"{number:.0f}" if compiled else "–" for number in row] + [f"{number:.0f}" for number in steps]
            print(f"| {stage} | {str(compiled).lower()} | {' | '.join(cells)} |", flush=True)


def _median(seconds: list[float]) -> float:
    return statistics.median(seconds[len(seconds) // 2 :])


def _beyond(seconds: list[float]) -> float:
    return sum(seconds) - len(seconds) * _median(seconds)


def _measured(stage: str, steps: int, compiled: bool) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        recipe = place / "recipe.json"  # JSON is YAML
        recipe.write_text(json.dumps(_recipe(stage, place, steps, compiled)))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": str(place / "cache")}
        command = [sys.executable, "-m", "benchmarks.compiling", "--one", str(recipe)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, list[float]] = json.loads(done.stdout.strip().rpartition("\n")[2])
    return found


def _recipe(stage: str, folder: Path, steps: int, compiled: bool) -> dict[str, Any]:
    texts = [json.loads(line)["text"].split() for line in STORIES.read_text(encoding="utf-8").split("\n") if line]
    rows = []
    for place, words in enumerate(texts[:ROWS]):
        prompt, end = " ".join(words[:8]), 30 + place % 25
        row = {"prompt": prompt, "chosen": " " + " ".join(words[8:end])}
        if stage == "dpo":
            row["rejected"] = " " + " ".join(texts[place + ROWS][8:end])
        else:
            row["completion"] = row.pop("chosen")
        rows.append(json.dumps(row) + "\n")
    (folder / "rows.jsonl").write_text("".join(rows), encoding="utf-8")
    return {
        "stage": stage,
        "output_dir": str(folder / "run"),
        "model_name_or_path": str(SHARED / "models" / "stories260K"),
        "datasets": [{"path": str(folder / "rows.jsonl")}],
        "lora_r": 8,
        "max_length": 320,
        "max_steps": steps,
        "per_device_train_batch_size": 8,
        "save_strategy": "no",
        **({"torch_compile": True} if compiled else {}),
    }


def _train(recipe: Path) -> None:
    import importlib

    from transformers import TrainerCallback
    from transformers.trainer import DEFAULT_CALLBACKS

    times: dict[str, list[float]] = {"cpu": [], "wall": []}

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.begun = time.process_time() + _of_children(), time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times["cpu"].append(time.process_time() + _of_children() - self.begun[0])
            times["wall"].append(time.perf_counter() - self.begun[1])

    DEFAULT_CALLBACKS.append(Clock)
    stage = json.loads(recipe.read_text())["stage"]
    importlib.import_module(f"recipes.{stage}").main(["--config", str(recipe)])
    print(json.dumps(times))


def _of_children() -> float:
    """Processor seconds of the C++ compilers that have ended."""
    spent = os.times()
    return spent.children_user + spent.children_system


if __name__ == "__main__":
    main()
