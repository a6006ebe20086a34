"""Two systems on the same work: each run in a process of its own, runs alternate, medians are compared."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.workload import WORKLOADS

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "runs" / "benchmarks"
Runs = dict[str, list[dict[str, Any]]]  # by system
WORK_DONE = "response_tokens"  # what PPO and GRPO count


def arguments_parser(description: str | None) -> argparse.ArgumentParser:
    """What a comparison is given."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=WORKLOADS, default="equal")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--updates", type=int, default=4, help="per run; the first is not counted")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lora_layers", type=int, help="ours; default: all layers")
    parser.add_argument("--work", type=Path, default=WORK, help="folder for the model that `equal` makes")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return parser


def alternate(
    systems: list[str], repetitions: int, measure: Callable[[str], dict[str, Any]], work: str = WORK_DONE
) -> Runs:
    """Measure every system in turn, in the opposite order every second time, and print each run.

    Args:
        work: what the figures count: a run has `WORK_per_second` and `WORK_per_cpu_second`.
    """
    runs: Runs = {system: [] for system in systems}
    for repetition in range(repetitions):
        for system in systems if repetition % 2 == 0 else reversed(systems):
            runs[system].append(measure(system))
            print(_line(system, runs[system][-1], work), flush=True)
    return runs


def ratios(runs: Runs, baseline: str, device: str, work: str = WORK_DONE) -> dict[str, dict[str, float]]:
    """Print every system's medians, and return those of each other system over the baseline's."""
    unit = work.rpartition("_")[2]
    names = {f"{unit}_{per}_ratio": f"{work}_{per}" for per in ("per_second", "per_cpu_second")}
    names["peak_memory_ratio"] = "peak_cuda_mib" if device == "cuda" else "peak_rss_mib"
    medians = {
        system: {figure: statistics.median(run[figure] for run in found) for figure in names.values()}
        for system, found in runs.items()
    }
    for system, found in medians.items():
        print(_line(f"median {system}", found, work))
    return {
        system: {ratio: found[figure] / medians[baseline][figure] for ratio, figure in names.items()}
        for system, found in medians.items()
        if system != baseline
    }


def measured(command: list[str], path: Path, *, threads: int, device: str) -> dict[str, Any]:
    """Run `python COMMAND`, modules found in `path` first, and return the JSON object on its last line."""
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    settings = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    printed = _run([sys.executable, *command], {**_found_first(path), **settings, **hidden})
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def make_model(workload: str, work: Path) -> None:
    """Make the model of a workload in a process of its own: torch in this one would count."""
    _run([sys.executable, "-m", "benchmarks.workload", workload, str(work)], _found_first(ROOT))


def conditions(threads: int, device: str) -> dict[str, Any]:
    """Return what was measured on, and with which versions."""
    versions = {name: version(name) for name in ("torch", "transformers", "peft", "accelerate")}
    return {"threads": threads, "device": _device(device), "versions": versions}


def require_device(device: str) -> None:
    """End the program if a GPU is asked for that is not there."""
    if (
        device == "cuda"
        and _run([sys.executable, "-c", "import torch; print(torch.cuda.is_available())"], {}) != "True\n"
    ):
        sys.exit("--device cuda: torch sees no CUDA device here; nothing was run")


def _found_first(folder: Path) -> dict[str, str]:
    """Have Python look for modules in `folder` first, then where it looks now."""
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH", ""))))}


def _run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def _line(system: str, found: dict[str, Any], work: str) -> str:
    memory = found.get("peak_cuda_mib", found["peak_rss_mib"]) if "peak_rss_mib" in found else found["peak_cuda_mib"]
    return (
        f"{system:19}: {found[f'{work}_per_second']:8.1f} {work.replace('_', ' ')}/s, "
        f"{found[f'{work}_per_cpu_second']:8.1f} by processor time, peak {memory:6.0f} MiB"
    )


def _device(kind: str) -> str:
    if kind == "cuda":
        return _run([sys.executable, "-c", "import torch; print(torch.cuda.get_device_name())"], {}).strip()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"
