"""Reward against KL for PPO, GRPO, RLOO, DPO and best-of-n: runs what is missing, seed by seed, and draws one picture.

It also prints what the last model of each of nine methods came to.

    python -m recipes.tinystories.frontier                # seeds 0, 1, 2 → runs/frontier/{frontier.json,frontier.svg}

For each seed `frontier.yaml` evaluates the checkpoints of the trained methods on the held-out openings, and best-of-n.
Every seed's curve begins at the fine-tuned model with a KL of 0; between its points it is a straight line, which is
read at the same KLs for all seeds. Bands and intervals are Student's, 95 %, over seeds.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np

from alignment.errors import DataError
from alignment.pipeline.runner import run_pipeline
from alignment.run.files import read_jsonl, write_atomic, write_json
from alignment.run.script import parsed, script
from recipes.tinystories import judge, methods, watcher
from recipes.tinystories.picture import Band, Panel, picture

MEASURES = {"score": "reward model's score", "compound": "VADER compound", "watcher": "watcher's probability"}
TRAINED = ("ppo", "grpo", "rloo", "dpo")
METHODS = (*TRAINED, "best-of-n")
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # 97.5 % quantile by number of seeds
EVERY = 0.25  # nats between the KLs at which curves are read
Points = list[dict[str, float]]  # rising KL


def main(argv: list[str] | None = None) -> None:
    """Run each seed's pipeline, then write the numbers and the picture and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m recipes.tinystories.frontier", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output_dir", type=Path, default=Path("runs/frontier"))
    parser.add_argument("--pipeline", default="recipes/tinystories/frontier.yaml")
    given = parsed(parser, argv)
    runs = [given.output_dir / f"seed{seed}" for seed in given.seeds]
    for seed, run in zip(given.seeds, runs, strict=True):
        code = run_pipeline(given.pipeline, output_dir=str(run), seed=seed)
        if code:
            sys.exit(code)
    curves = [read_run(run) for run in runs]
    found = {method: common([curve[method] for curve in curves]) for method in METHODS}
    write_json(given.output_dir / "frontier.json", {"seeds": given.seeds, "points": curves, "curves": found})
    write_atomic(given.output_dir / "frontier.svg", drawn(curves, found))
    print(table(found))  # noqa: T201
    print(f"\n{methods.table([methods.read(run) for run in runs])}\n")  # noqa: T201
    print(f"Picture: {given.output_dir / 'frontier.svg'}")  # noqa: T201


def read_run(run: Path) -> dict[str, Points]:
    """Return a seed's points by method, each method's first at the fine-tuned model."""
    results = json.loads((run / "evaluate" / "results.json").read_text(encoding="utf-8"))
    answers = read_jsonl(run / "evaluate" / "answers.jsonl")
    if not answers:
        raise DataError(f"{run}/evaluate/answers.jsonl is empty; remove the folder and run again.")

    def point(policy: str, kl: float) -> dict[str, float]:
        texts = [row["answers"][policy] for row in answers]
        compound = float(np.mean([judge.compound(text) for text in texts]))
        watched = float(np.mean([watcher.probability(text) for text in texts]))
        return {"kl": kl, "score": results["reward_score"][policy], "compound": compound, "watcher": watched}

    curves: dict[str, Points] = {"best-of-n": json.loads((run / "best_of_n" / "curve.json").read_text())}
    for method in TRAINED:
        policies = [name for name in results["candidates"] if name.startswith(f"{method}-")]
        trained = [point(name, results["kl"][name]) for name in policies]
        start = point(results["baseline"], 0.0)
        curves[method] = [start, *sorted(trained, key=lambda each: each["kl"])]
    return curves


def common(seeds: list[Points]) -> dict[str, list[float]]:
    """Read every seed's curve at the same KLs, as far as all of them go.

    Returns: `kl`, and for each measure its mean with `_low` and `_high`.
    """
    reach = min(points[-1]["kl"] for points in seeds)
    at = np.append(np.arange(0.0, reach, EVERY), reach)
    found = {"kl": at.tolist()}
    for measure in MEASURES:
        rows = np.array([np.interp(at, [p["kl"] for p in points], [p[measure] for p in points]) for points in seeds])
        half = np.zeros(len(at))
        if len(seeds) > 1:
            half = STUDENT[len(seeds)] * rows.std(axis=0, ddof=1) / math.sqrt(len(seeds))
        mean = rows.mean(axis=0)
        found |= {measure: mean.tolist(), f"{measure}_low": (mean - half).tolist()}
        found[f"{measure}_high"] = (mean + half).tolist()
    return found


def drawn(curves: list[dict[str, Points]], found: dict[str, dict[str, list[float]]]) -> str:
    """Draw one panel for each measure."""
    panels = []
    for measure, title in MEASURES.items():
        bands = []
        for method in METHODS:
            mean = found[method]
            dots = [(p["kl"], p[measure]) for curve in curves for p in curve[method]]
            edges = (mean[f"{measure}_low"], mean[f"{measure}_high"])
            bands.append(Band(label(method), mean["kl"], mean[measure], *edges, dots))
        panels.append(Panel(title, "KL to the fine-tuned model, nats an answer", bands))
    return picture(panels)


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Write the measures at whole KLs as Markdown."""
    lines = ["| KL, nats | measure | " + " | ".join(map(label, METHODS)) + " |", "|---|---|" + "---|" * len(METHODS)]
    for kl in (1, 2, 4, 6, 8, 10, 12):
        for measure, title in MEASURES.items():
            cells = [cell(found[method], measure, kl) for method in METHODS]
            if any(cell != "–" for cell in cells):
                lines.append(f"| {kl} | {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(curve: dict[str, list[float]], measure: str, kl: float) -> str:
    """Write one mean with its interval, a dash where not every seed's curve goes so far."""
    if kl > curve["kl"][-1]:
        return "–"
    value, low, high = (float(np.interp(kl, curve["kl"], curve[measure + end])) for end in ("", "_low", "_high"))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def label(method: str) -> str:
    """Write a method's name."""
    return method if method == "best-of-n" else method.upper()


if __name__ == "__main__":
    script(main)
