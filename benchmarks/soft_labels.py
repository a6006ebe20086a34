"""What a reward model gains by a judge's probabilities over its verdicts, where the truth is known.

    alignment run recipes/tiny/pipeline.yaml
    python -m benchmarks.soft_labels [--runs runs/tiny] [--output_dir runs/soft_labels] [--seeds 0 1 2] [--noise 1.0]

People prefer the first of two answers with probability p* = sigma(1.5 (q1 - q2)), q being recipes.tiny.gold's quality.
The judge is noisy: its probability is sigma(1.5 (q1 - q2) + e), e normal with standard deviation
`--noise`. One reward model of recipes/tiny/reward.yaml learns those probabilities, another the judge's verdicts (1 for
the answer it finds likelier), a third one draw from each probability; all from the same answers of runs/tiny/label. On
the held-out prompts of runs/tiny/label_gold the probability that each gives, sigma of its scores' difference, is held
against p*: its expected negative log-likelihood and Brier score, its calibration error, and how often it names the
better answer. The last line is one JSON object.
"""

import argparse
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from alignment.data import load_rankings, ranking_to_json
from alignment.data.rows import Pair, Ranking
from alignment.run.directory import read_manifest
from alignment.run.files import write_jsonl
from recipes.tiny.gold import quality

SLOPE = 1.5  # of people's choice by the difference in quality
RECIPE = "recipes/tiny/reward.yaml"
LEARNED: dict[str, Callable[[float, random.Random], float]] = {
    "probabilities": lambda p, dice: p,
    "verdicts": lambda p, dice: float(p > 0.5),
    "one draw": lambda p, dice: float(dice.random() < p),
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/tiny"))
    parser.add_argument("--output_dir", type=Path, default=Path("runs/soft_labels"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--noise", type=float, default=1.0)
    given = parser.parse_args(argv)
    train, held_out = (rankings(given.runs / name / "labels.jsonl") for name in ("label", "label_gold"))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in LEARNED}
    for seed in given.seeds:
        for name, learned in LEARNED.items():
            folder = given.output_dir / f"{name.replace(' ', '_')}-{seed}"
            labels = folder.with_suffix(".jsonl")
            judged = [judge(ranking, given.noise, seed, learned) for ranking in train]
            labels.parent.mkdir(parents=True, exist_ok=True)
            write_jsonl(labels, [ranking_to_json(ranking) for ranking in judged])
            fit(folder, given.runs, labels, seed)
            found[name].append(measure(folder, held_out))
    floor = errors(*columns(held_out, [[SLOPE * quality(r.prompt, a) for a in r.responses] for r in held_out]))
    print(table(found, floor))
    print(json.dumps({"noise": given.noise, "seeds": given.seeds, "learned": found, "truth": floor}))


def rankings(path: Path) -> list[Ranking]:
    """Read the answers; their labels are not looked at."""
    from alignment.config.schema import DatasetEntry

    return load_rankings([DatasetEntry(path=str(path))], on_bad_row="stop", seed=0).rows


def different(ranking: Ranking) -> list[Pair]:
    """Pairs of answers that are not the same text."""
    return [pair for pair in ranking.pairs if ranking.responses[pair.first] != ranking.responses[pair.second]]


def truth(ranking: Ranking, first: int, second: int) -> float:
    """p*: the probability with which people prefer the first of two answers."""
    gap = quality(ranking.prompt, ranking.responses[first]) - quality(ranking.prompt, ranking.responses[second])
    return 1 / (1 + math.exp(-SLOPE * gap))


def judge(ranking: Ranking, noise: float, seed: int, learned: Callable[[float, random.Random], float]) -> Ranking:
    """Label every pair of answers as the noisy judge does; its noise is the same whatever is learned from it."""
    pairs = []
    for pair in different(ranking):
        key = json.dumps([seed, ranking.prompt, ranking.responses[pair.first], ranking.responses[pair.second]])
        dice = random.Random(key)
        p = truth(ranking, pair.first, pair.second)
        said = 1 / (1 + math.exp(-math.log(p / (1 - p)) - dice.gauss(0, noise)))
        pairs.append(Pair(pair.first, pair.second, learned(said, dice)))
    return Ranking(ranking.prompt, ranking.responses, pairs, ranking.provenance, ranking.source)


def fit(folder: Path, runs: Path, labels: Path, seed: int) -> None:
    """Train a reward model on the labels, unless that is done."""
    from recipes.reward import main as reward

    if read_manifest(folder).get("status") == "finished":
        return
    arguments = {
        "output_dir": str(folder),
        "model_name_or_path": str(runs / "sft"),
        "datasets": json.dumps([{"path": str(labels)}]),
        "eval_datasets": json.dumps([{"path": str(runs / "label_gold" / "labels.jsonl")}]),
        "seed": str(seed),
    }
    reward(["--config", RECIPE, *(word for key, value in arguments.items() for word in (f"--{key}", value))])


def measure(folder: Path, held_out: list[Ranking]) -> dict[str, float]:
    """Score the held-out answers and compare with the truth."""
    from reward.models.scoring import RewardScorer

    answers = [(r.prompt, answer, r.stopped(i)) for r in held_out for i, answer in enumerate(r.responses)]
    prompts, texts, stopped = zip(*answers, strict=True)
    flat = iter(RewardScorer.load(str(folder)).score(prompts, texts, stopped=stopped))
    return errors(*columns(held_out, [[next(flat) for _ in ranking.responses] for ranking in held_out]))


def columns(held_out: list[Ranking], scores: list[list[float]]) -> tuple[Any, Any]:
    """The model's probability and p* of every held-out pair of different answers, (pairs,) each."""
    rows = [
        (row[pair.first] - row[pair.second], truth(ranking, pair.first, pair.second))
        for ranking, row in zip(held_out, scores, strict=True)
        for pair in different(ranking)
    ]
    gap, expected = np.array(rows).T
    return 1 / (1 + np.exp(-gap)), expected


def errors(p: Any, expected: Any) -> dict[str, float]:
    """NLL in nats, Brier score and calibration error of `p` for votes that are cast by `expected`, and accuracy."""
    from alignment.evaluate.statistics import calibration_error
    from reward.audit.calibration import brier, nll

    decided = np.abs(expected - 0.5) > 1e-9
    right = np.where(p == 0.5, 0.5, (p > 0.5) == (expected > 0.5))[decided]
    return {
        "ece": calibration_error(p, expected),
        "brier": brier(p, expected),
        "nll": nll(p, expected),
        "accuracy": float(right.mean()),
    }


def table(found: dict[str, list[dict[str, float]]], floor: dict[str, float]) -> str:
    """Means over the seeds, least and greatest in brackets, as Markdown."""
    lines = ["| learned from | ECE | Brier | NLL, nats | accuracy |", "|---|---|---|---|---|"]
    for name, rows in found.items():
        cells = []
        for key in floor:
            values, shape = [row[key] for row in rows], "{:.1%}" if key == "accuracy" else "{:.3f}"
            cells.append("{} [{}, {}]".format(*map(shape.format, (fmean(values), min(values), max(values)))))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    cells = [("{:.1%}" if key == "accuracy" else "{:.3f}").format(value) for key, value in floor.items()]
    return "\n".join([*lines, f"| the truth itself | {' | '.join(cells)} |"])


if __name__ == "__main__":
    main()
