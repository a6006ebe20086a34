"""Seconds until PPO with adapters in the top layers reaches the score of PPO with adapters in all layers.

    python -m recipes.tinystories.frontier --seeds 0 1 2
    python -m benchmarks.time_to_reward [--runs runs/frontier] [--output_dir runs/time_to_reward] [--seeds 0 1 2]

PPO of recipes/tinystories on stories260K, which has 5 layers. For each seed the fine-tuned model of `--runs` is merged,
and one reward model is trained on it with `lora_layers: 1`, so that the score is the same one for every variant and
lies above every trunk. Then PPO runs with adapters in all layers, in the top three, two and one, and with
`value_model: head`. Runs with fewer layers take half as many updates more, as theirs are cheaper.

The score of an update is the mean over its answers before its steps; three updates are averaged. The target is that of
the last update with adapters in all layers and a value adapter. "Score in equal time" is read at half of the seconds of
that run. Seconds are processor time: a run's processor time over
its wall time, times the wall time of sampling, scoring and training, which the log has. Start-up is not in it. A run
that is finished is read, not run again. The last line printed is one JSON object.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from alignment.run.files import read_jsonl, write_atomic, write_json
from recipes.tinystories.frontier import STUDENT
from recipes.tinystories.picture import Band, Panel, picture

RECIPES = "recipes/tinystories"
ANSWERS = 2048  # of ppo.yaml, with adapters in all layers
VARIANTS: dict[str, dict[str, Any]] = {
    "all layers": {"value_model": "adapter", "total_episodes": ANSWERS},
    "top 3": {"value_model": "adapter", "lora_layers": 3},
    "top 2": {"value_model": "adapter", "lora_layers": 2},
    "top 1": {"value_model": "adapter", "lora_layers": 1},
    "all layers, value head": {"value_model": "head", "total_episodes": ANSWERS},
    "top 2, value head": {"value_model": "head", "lora_layers": 2},
}
TARGET = "all layers"
AVERAGED = 3  # updates
Curve = list[
    dict[str, float]
]  # of a run's updates: when the score was measured and when it ended, in seconds; score; kl


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/frontier"))
    parser.add_argument("--output_dir", type=Path, default=Path("runs/time_to_reward"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args(argv)
    curves = {seed: trained(given.runs / f"seed{seed}", given.output_dir / f"seed{seed}", seed) for seed in given.seeds}
    found = {name: [reached(curves[seed], name) for seed in given.seeds] for name in VARIANTS}
    write_atomic(given.output_dir / "time_to_reward.svg", drawn(list(curves.values())))
    print(table(found))
    print(json.dumps({"seeds": given.seeds, "variants": found}))


def trained(start: Path, out: Path, seed: int) -> dict[str, Curve]:
    """Train the reward model and all variants of one seed; returns their curves."""
    base, reward = out / "sft", out / "reward"
    if not base.exists():
        run("merge", str(start / "sft"), str(base))
    same = {"seed": seed}
    if not finished(reward):
        labels = [{"path": str(start / "label" / "labels.jsonl")}]
        stage("reward", reward, model_name_or_path=str(base), datasets=labels, lora_layers=1, **same)
    curves = {}
    for name, keys in VARIANTS.items():
        folder = out / name.replace(",", "").replace(" ", "_")
        times = folder.with_suffix(".json")
        if not times.is_file():
            prompts = [{"path": str(start / "data" / "prompts_train.jsonl")}]
            models = {"model_name_or_path": str(base), "reward_model_path": str(reward)}
            episodes = {"total_episodes": ANSWERS * 3 // 2}
            spent = stage("ppo", folder, **models, datasets=prompts, **{**episodes, **keys}, **same)
            write_json(times, spent)
        curves[name] = curve(read_jsonl(folder / "metrics.jsonl"), json.loads(times.read_text(encoding="utf-8")))
    return curves


def finished(folder: Path) -> bool:
    """Whether a stage has ended in this folder."""
    manifest = folder / "manifest.json"
    return manifest.is_file() and json.loads(manifest.read_text(encoding="utf-8")).get("status") == "finished"


def stage(name: str, folder: Path, **keys: Any) -> dict[str, float]:
    """Run a stage with other keys; returns its processor and wall seconds."""
    options = [text for key, value in keys.items() for text in (f"--{key}", as_option(value))]
    return run(name, "--config", f"{RECIPES}/{name}.yaml", "--output_dir", str(folder), *options)


def as_option(value: Any) -> str:
    """Write a value for the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def run(*arguments: str) -> dict[str, float]:
    """Run the command `alignment`; returns its processor and wall seconds."""
    command = Path(sys.executable).with_name("alignment")
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([command, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_seconds": cpu, "wall_seconds": time.perf_counter() - began}


def curve(log: list[dict[str, Any]], spent: dict[str, float]) -> Curve:
    """Return each update's averaged score, with the seconds that had passed when it was measured."""
    share = spent["cpu_seconds"] / spent["wall_seconds"]
    updates = [row for row in log if "score" in row]
    passed, scores, points = 0.0, [], []
    for row in updates:
        scores.append(row["score"])
        # an update's score is of the weights before its steps
        measured = passed + share * (row["seconds_sample"] + row["seconds_score"])
        passed = measured + share * row["seconds_train"]
        points.append({"seconds": measured, "ends": passed, "score": fmean(scores[-AVERAGED:]), "kl": row["kl"]})
    return points


def reached(curves: dict[str, Curve], name: str) -> dict[str, float | None]:
    """Return what a variant came to; `seconds` and `kl` are None where it never had the target's score."""
    target = curves[TARGET][-1]["score"]
    points = curves[name]
    half = curves[TARGET][-1]["ends"] / 2
    there = next((point for point in points[AVERAGED - 1 :] if point["score"] >= target), None)
    return {
        "target": target,
        "seconds": there["seconds"] if there else None,
        "kl": there["kl"] if there else None,
        "seconds_per_update": points[-1]["ends"] / len(points),
        "equal_time_score": float(np.interp(half, *([point[key] for point in points] for key in ("seconds", "score")))),
        "last_score": points[-1]["score"],
        "last_kl": points[-1]["kl"],
    }


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Write the figures over seeds as Markdown."""
    titles = (
        "adapters",
        "s an update",
        "s to the target",
        "ratio",
        "KL there",
        "score in equal time",
        "last score",
        "last KL",
    )
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for name, seeds in found.items():
        pairs = zip(found[TARGET], seeds, strict=True)
        gains = [base["seconds"] / seed["seconds"] if seed["seconds"] else 0.0 for base, seed in pairs]
        cells = [
            name,
            f"{fmean(seed['seconds_per_update'] for seed in seeds):.1f}",
            " / ".join(f"{seed['seconds']:.0f}" if seed["seconds"] else "–" for seed in seeds),
            interval(gains),
            " / ".join(f"{seed['kl']:.1f}" if seed["seconds"] else "–" for seed in seeds),
            " / ".join(f"{seed['equal_time_score']:.2f}" for seed in seeds),
            " / ".join(f"{seed['last_score']:.2f}" for seed in seeds),
            " / ".join(f"{seed['last_kl']:.1f}" for seed in seeds),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def interval(values: list[float]) -> str:
    """Write a mean with its 95 % interval over seeds (Student's)."""
    if min(values) == 0:
        return f"{sum(value > 0 for value in values)} of {len(values)} seeds reach it"
    mean = fmean(values)
    if len(values) < 2 or max(values) == min(values):
        return f"{mean:.2f}"
    half = STUDENT[len(values)] * stdev(values) / math.sqrt(len(values))
    return f"{mean:.2f} [{mean - half:.2f}, {mean + half:.2f}]"


def drawn(seeds: list[dict[str, Curve]]) -> str:
    """Draw score against seconds, and score against KL, for the variants with a value adapter."""
    names = [name for name in VARIANTS if VARIANTS[name]["value_model"] == "adapter"]
    by_time, by_kl = [], []
    for name in names:
        curves = [curves[name] for curves in seeds]
        dots = [(point["seconds"], point["score"]) for curve in curves for point in curve]
        by_time.append(band(name, curves, "seconds", dots))
        by_kl.append(band(name, curves, "kl", [(point["kl"], point["score"]) for curve in curves for point in curve]))
    panels = [
        Panel("reward model's score", "processor seconds", by_time),
        Panel("reward model's score", "KL to the fine-tuned model, nats an answer", by_kl),
    ]
    return picture(panels)


def band(name: str, curves: list[Curve], axis: str, dots: list[tuple[float, float]]) -> Band:
    """Return the mean over seeds with its interval, as far along the axis as all of them go."""
    ordered = [sorted(curve, key=lambda point: point[axis]) for curve in curves]
    at = np.linspace(max(curve[0][axis] for curve in ordered), min(curve[-1][axis] for curve in ordered), 24)
    rows = np.array([np.interp(at, [p[axis] for p in curve], [p["score"] for p in curve]) for curve in ordered])
    half = STUDENT[len(rows)] * rows.std(axis=0, ddof=1) / math.sqrt(len(rows)) if len(rows) > 1 else 0 * at
    mean = rows.mean(axis=0)
    return Band(name, at.tolist(), mean.tolist(), (mean - half).tolist(), (mean + half).tolist(), dots)


if __name__ == "__main__":
    main()
