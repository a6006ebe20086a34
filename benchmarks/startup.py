"""How long `alignment --help` and the first step of an SFT run take from the start of their process.

    python -m benchmarks.startup [--repetitions 3] [--imports 15]

The run is a recipe of stage sft on stories260K with LoRA, on 64 rows of ../shared/data/self-instruct, and ends after
its first optimizer step. Given are seconds of processor time, user and system together, which are those of an idle
core, and elapsed seconds, as medians; then the share of each package's modules in the time of all imports of
recipes/sft.py. The last line is one JSON object.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.comparison import ROOT
from benchmarks.workload import SHARED

GOALS = {"help": 0.5, "first_step": 8.0}  # seconds
COMMANDS = {
    "help": ["-m", "alignment.cli", "--help"],
    "first_step": ["-m", "benchmarks.startup", "--first_step"],
}
TOLD = "at the end of the first step: "  # processor time and clock, in seconds
RECIPE = {
    "stage": "sft",
    "model_name_or_path": str(SHARED / "models" / "stories260K"),
    "eos_token": "<s>",
    "datasets": [{"path": str(SHARED / "data" / "self-instruct" / "t0_train_2k.jsonl")}],
    "chat_template": "{{ bos_token }}{% for m in messages %}{{ m['content'] }} "
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}",
    "on_bad_row": "skip",
    "max_samples": 64,
    "max_length": 256,
    "peft_method": "lora",
    "per_device_train_batch_size": 8,
    "max_steps": 1,
    "save_strategy": "no",
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--imports", type=int, default=15, help="lines of the table of packages")
    parser.add_argument("--first_step", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.first_step:
        take_first_step()
    found: dict[str, Any] = {}
    for name, command in COMMANDS.items():
        runs = [measured(command) for _ in range(args.repetitions)]
        cpu, elapsed = (statistics.median(run[place] for run in runs) for place in (0, 1))
        found[name] = {"cpu_seconds": cpu, "seconds": elapsed, "goal": GOALS[name], "runs": runs}
        print(f"{name:10}: {cpu:.2f} s of processor time (goal {GOALS[name]}), {elapsed:.2f} s elapsed")
    found["imports"] = imports("recipes.sft", args.imports)
    print("\n| package | share of the imports' time |\n|---|---|")
    for package, share in found["imports"].items():
        print(f"| {package} | {share:.0%} |")
    print(json.dumps(found))


def measured(command: list[str]) -> tuple[float, float]:
    """Return the processor time and the elapsed time of a process, or those it prints last, in seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    ended, after = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-3000:]}")
    told = done.stdout.rstrip("\n").rpartition("\n")[2]
    if told.startswith(TOLD):
        cpu, ended = json.loads(told.removeprefix(TOLD))
        return cpu, ended - start
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, ended - start


def take_first_step() -> None:
    """Run the stage's script, and end the process at the end of its first optimizer step."""
    import recipes.sft as stage

    callbacks_for = stage.callbacks_for

    def and_end(*given: Any) -> list[Any]:
        from transformers import TrainerCallback

        class End(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, *_: Any, **__: Any) -> None:
                print(TOLD + json.dumps([time.process_time(), time.time()]))
                sys.exit()

        return [*callbacks_for(*given), End()]

    stage.callbacks_for = and_end
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "sft.yaml"
        recipe.write_text(json.dumps({**RECIPE, "output_dir": f"{folder}/run"}))
        stage.main(["--config", str(recipe)])


def imports(module: str, count: int) -> dict[str, float]:
    """Return the share of the `count` slowest packages in the time of a module's imports, by `python -X importtime`."""
    code = ["-X", "importtime", "-c", f"import {module}"]
    done = subprocess.run([sys.executable, *code], cwd=ROOT, check=True, capture_output=True, text=True)
    seconds: dict[str, float] = defaultdict(float)
    for line in done.stderr.splitlines():
        own, _, name = line.removeprefix("import time:").replace("|", " | ").partition(" | ")
        if own.strip().isdigit():
            seconds[name.rpartition("|")[2].strip().partition(".")[0]] += int(own) / 1e6
    slowest = sorted(seconds, key=lambda package: -seconds[package])[:count]
    return {package: seconds[package] / sum(seconds.values()) for package in slowest}


if __name__ == "__main__":
    main()
