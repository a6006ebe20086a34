"""Length-controlled win rates against AlpacaEval 2's leaderboard, from the judgements in AlpacaEval's repository.

    git clone https://github.com/tatsu-lab/alpaca_eval
    python -m benchmarks.alpaca_eval alpaca_eval

The leaderboard's model needs `df_gamed.csv` of a Hub data set. This script computes what that file holds, as far as a
fit depends on it, from published numbers:

- The difficulty of an instruction d: two models' judgements hold the prediction q at equal lengths, and the repository
  holds their fitted weights: d = (logit q - w_model) / w_difficulty. Both models give the same.
- The judgements of the gamed baselines enter the loss by two sums alone, Σ p tanh(length) and Σ p d: the cross-entropy
  is log(1 + e^z) - p z, with z linear in both. At the fitted weights of any model the gradient is zero (with the L1
  penalty's, whose size the third weight shows), which gives both sums. Their lengths are in the repository.
  Probabilities with these sums stand for the judgements.

It prints the sums as each model gives them, and each model's win rate beside the leaderboard's.
"""

import argparse
import csv
import io
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import fsolve
from scipy.special import expit, logit

from alignment.standings.calibration import Calibration, Gamed
from alignment.standings.length_control import GAMED_WEIGHT, length_controlled

Floats = NDArray[np.float64]
BASELINE, JUDGE = "gpt4_1106_preview", "weighted_alpaca_eval_gpt4_turbo"
GAMED = (f"{BASELINE}_concise", f"{BASELINE}_verbose")
PREDICTED = ("vicuna-13b-v1.5", "vicuna-7b-v1.5")  # whose judgements hold predictions
LENGTH, DIFFICULTY, MODEL = "np.tanh(std_delta_len)", "instruction_difficulty", "not_gamed_baseline.astype(float)"
LARGEST_PENALTY = 0.5  # of the models that the sums are taken from


@dataclass(frozen=True, slots=True)
class Judged:
    """One model's judgements, in the order of AlpacaEval's instructions; NaN where there is none."""

    preference: Floats  # (instructions,) 0 to 1
    lengths: Floats  # (instructions, 2) characters of the model's and the baseline's answers

    @property
    def tanh_length(self) -> Floats:
        """The length's feature, as the leaderboard's model has it."""
        less = self.lengths[:, 1] - self.lengths[:, 0]
        return np.tanh(less / less.std(ddof=1))


class Repository:
    """Files of a clone of AlpacaEval, as they are committed."""

    def __init__(self, clone: Path) -> None:
        self.clone = clone
        base = json.loads(self.text(f"results/{BASELINE}/model_outputs.json"))
        self.baseline = [len(row["output"]) for row in base]
        self.places = {row["instruction"]: place for place, row in enumerate(base)}
        weights = f"src/alpaca_eval/metrics/weights/{JUDGE}/length_controlled_v1/baseline_{BASELINE}.csv"
        board = f"src/alpaca_eval/leaderboards/data_AlpacaEval_2/{JUDGE}_leaderboard.csv"
        self.weights = {
            row[""]: np.array([float(row[name]) for name in (LENGTH, DIFFICULTY, MODEL)])
            for row in self._table(weights)
        }
        rows = self._table(board)
        self.published = {
            row[""]: float(row["length_controlled_winrate"]) for row in rows if row["length_controlled_winrate"]
        }

    def text(self, path: str) -> str:
        """Return a committed file; a clone without all files raises `subprocess.CalledProcessError`."""
        command = ["git", "-C", str(self.clone), "show", f"HEAD:{path}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def _table(self, path: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.text(path))))

    def rows(self, path: str) -> list[dict[str, Any]]:
        """Return the rows of a JSON file whose instructions are AlpacaEval's."""
        return [row for row in json.loads(self.text(path)) if row["instruction"] in self.places]

    def judged(self, model: str) -> Judged | None:
        """Return a model's judgements; None if the clone lacks the file."""
        try:
            rows = self.rows(f"results/{model}/{JUDGE}/annotations.json")
        except subprocess.CalledProcessError:
            return None
        preference = np.full(len(self.places), np.nan)
        lengths = np.full((len(self.places), 2), np.nan)
        for row in rows:
            place = self.places[row["instruction"]]
            preference[place] = (row["preference"] or 1.5) - 1 if row["preference"] is not None else np.nan
            lengths[place] = len(row["output_2"]), len(row["output_1"])
        whole = np.isfinite(lengths).all()
        return Judged(preference, lengths) if whole else None

    def difficulty(self, model: str) -> Floats:
        """Return each instruction's difficulty by one model's predictions."""
        _, slope, own = self.weights[model]
        found = np.full(len(self.places), np.nan)
        for row in self.rows(f"results/{model}/{JUDGE}/{JUDGE}/annotations.json"):
            found[self.places[row["instruction"]]] = (logit(row["glm_preference"]) - own) / slope
        return found

    def gamed_length(self) -> Floats:
        """Return the standardised differences of both gamed baselines' answers, one after the other."""
        parts = []
        for model in GAMED:
            less = np.zeros(len(self.places))
            for row in self.rows(f"results/{model}/model_outputs.json"):
                place = self.places[row["instruction"]]
                less[place] = self.baseline[place] - len(row["output"])
            parts.append(less / less.std(ddof=1))
        return np.concatenate(parts)


def main() -> None:
    """Compute the calibration, and print each model's rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path)
    repository = Repository(parser.parse_args().clone)
    one, other = (repository.difficulty(model) for model in PREDICTED)
    print(f"difficulties of {len(one)} instructions; the two models differ by at most {np.abs(one - other).max():.1e}")
    judged = {model: found for model in sorted(repository.published) if (found := repository.judged(model))}
    judged.pop(BASELINE, None)
    calibration = calibrated(repository, one, judged)
    off = []
    print("| model | here | leaderboard |\n|---|---|---|")
    for model, found in judged.items():
        rate = 100 * length_controlled(found.preference, found.lengths, calibration).win_rate
        off.append(abs(rate - repository.published[model]))
        print(f"| {model} | {rate:.3f} | {repository.published[model]:.3f} |", flush=True)
    within = ", ".join(f"{sum(each < most for each in off)} within {most}" for most in (0.01, 0.1))
    print(f"{len(off)} models: median difference {np.median(off):.4f}, largest {max(off):.3f}; {within}")


def calibrated(repository: Repository, difficulty: Floats, judged: dict[str, Judged]) -> Calibration:
    """Return difficulties, and probabilities of the gamed baselines that have the sums of their judgements."""
    length, twice = repository.gamed_length(), np.concatenate([difficulty, difficulty])
    features = np.stack([np.tanh(length), twice], axis=1)
    by_model = (sums_by(repository.weights[model], judged[model], difficulty, features) for model in judged)
    sums = np.array([found for found in by_model if found is not None])
    wanted = np.median(sums, axis=0)
    spread = np.percentile(sums, [25, 75], axis=0)
    for name, value, (low, high) in zip(("tanh(length)", "d"), wanted, spread.T, strict=True):
        print(f"Σ p {name}: {value:.2f} by {len(sums)} models, half of them from {low:.2f} to {high:.2f}")
    own = np.concatenate(
        [np.full(len(difficulty), repository.weights[model][2]) for model in GAMED]
    )  # as likely as their own fits have it
    slopes = np.repeat([repository.weights[model][:2] for model in GAMED], len(difficulty), axis=0)

    def at(change: Floats) -> Floats:
        return np.asarray(expit((features * (slopes + change)).sum(axis=1) + own))

    missing: Callable[[Floats], Floats] = lambda change: features.T @ at(change) - wanted  # noqa: E731
    preference = at(fsolve(missing, np.zeros(2)))
    return Calibration(difficulty, Gamed(preference=preference, length=length, difficulty=twice))


def sums_by(weights: Floats, judged: Judged, difficulty: Floats, gamed: Floats) -> tuple[float, float] | None:
    """Return both sums by one model's fitted weights; None if its penalty was large.

    Args:
        gamed: (rows, 2) features of the gamed baselines.
    """
    usable = np.isfinite(judged.preference)
    features = np.stack([judged.tanh_length, difficulty, np.ones(len(difficulty))], axis=1)[usable]
    gradient = features.T @ (expit(features @ weights) - judged.preference[usable])
    penalty = -gradient[2] * np.sign(weights[2])
    if abs(penalty) > LARGEST_PENALTY:
        return None
    missing = gradient[:2] + penalty * np.sign(weights[:2])
    first, second = gamed.T @ expit(gamed @ weights[:2]) + missing / GAMED_WEIGHT
    return float(first), float(second)


if __name__ == "__main__":
    main()
