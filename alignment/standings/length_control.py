"""The length-controlled win rate of AlpacaEval 2, https://arxiv.org/abs/2404.04475.

A generalised linear model predicts the preference q for the model's answer x over the baseline's b, eq. 1 and 2:

    logit q = w_length tanh((len b - len x) / s) + w_difficulty d + w_model

with s the standard deviation of the differences in characters and d each instruction's difficulty, fitted by AlpacaEval
on all models. The rate is the mean prediction with a difference of zero. As in AlpacaEval's `glm_winrate.py` (0.6.6),
the model is scikit-learn's with liblinear and an L1 penalty, whose strength is chosen among ten by five-fold
cross-validation with log loss. Choice and fit depend on the folds, the seeds and liblinear's tolerance, so these are
AlpacaEval's too: another solver would not reproduce the leaderboard.

Judgements of the baseline told to be verbose and to be concise enter the fit with a weight of 0.1 each, and keep models
from gaming the length.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.errors import DataError
from alignment.standings.calibration import MINIMAL, Calibration, Model
from alignment.standings.rates import standard_error

Floats = NDArray[np.float64]
GAMED_WEIGHT = 0.2 / 2  # AlpacaEval's regularize_to_baseline_lambda, over the two gamed baselines
FOLDS = 5
STRENGTHS = np.logspace(-4, 4, 10)  # inverse, scikit-learn's default
INSERTION = 15  # largest difference of ends of a part that NumPy's quicksort leaves to insertion sort
SEED = 123
LEAST = 2 * FOLDS  # judgements
CLIPPED = 1e-15


@dataclass(frozen=True, slots=True)
class LengthControlled:
    """A length-controlled win rate."""

    model: Model
    win_rate: float
    standard_error: float | None  # of the mean prediction, as AlpacaEval's `lc_standard_error`
    weights: dict[str, float]
    predictions: Floats  # (rows,) at equal length

    def as_json(self) -> dict[str, Any]:
        """Return plain numbers."""
        return {
            "model": self.model,
            "value": self.win_rate,
            "standard_error": self.standard_error,
            "weights": self.weights,
        }


def length_controlled(preferences: Floats, lengths: Floats, calibration: Calibration | None = None) -> LengthControlled:
    """Fit the model and return its win rate.

    Args:
        preferences: (rows,) probability that the model's answer is better, in the order of AlpacaEval's set; NaN where
            there is none: such a row is predicted and not learned from, as in AlpacaEval.
        lengths: (rows, 2) characters of the model's and the baseline's answers.
        calibration: None: without difficulties and gamed baselines, AlpacaEval's `length_controlled_minimal`.

    Raises: DataError if there are fewer rows than the model needs, all lengths differ by the same number, or the
        calibration has fewer difficulties than there are rows.
    """
    names, design = _design(lengths, calibration)
    usable = np.isfinite(preferences)
    if usable.sum() < LEAST:
        raise DataError(
            f"{int(usable.sum())} judgements are too few for a length-controlled win rate; it needs {LEAST}."
        )
    learned, target, weights = design[usable], preferences[usable], np.ones(int(usable.sum()))
    if calibration is not None and calibration.gamed is not None:
        gamed = calibration.gamed
        rows = np.stack([np.tanh(gamed.length), gamed.difficulty, np.zeros(len(gamed.length))], axis=1)
        learned, target = np.concatenate([rows, learned]), np.concatenate([gamed.preference, target])
        weights = np.concatenate([np.full(len(rows), GAMED_WEIGHT), weights])
    found = _fit(learned, target, weights)
    design[:, 0] = 0.0  # equal lengths
    predictions = _logistic(design @ found)
    return LengthControlled(
        MINIMAL if calibration is None else calibration.model,
        float(predictions.mean()),
        standard_error(predictions),
        dict(zip(names, map(float, found), strict=True)),
        predictions,
    )


def even(rows: int, calibration: Calibration | None = None) -> LengthControlled:
    """Return the rate of the baseline against itself, one half, which AlpacaEval's leaderboard has without a fit."""
    model = MINIMAL if calibration is None else calibration.model
    return LengthControlled(model, 0.5, 0.0 if rows > 1 else None, {}, np.full(rows, 0.5))


def _design(lengths: Floats, calibration: Calibration | None) -> tuple[list[str], Floats]:
    """Return the names of the features and their values, (rows, features); the length is the first of them."""
    rows, difference = len(lengths), lengths[:, 1] - lengths[:, 0]
    spread = float(difference.std(ddof=1)) if rows > 1 else 0.0
    if spread == 0:
        raise DataError("the lengths of all pairs differ by the same number, so length cannot be controlled for.")
    features = {"tanh_length": np.tanh(difference / spread)}
    if calibration is not None:
        if len(calibration.difficulty) < rows:
            raise DataError(
                f"the calibration has the difficulty of {len(calibration.difficulty)} instructions, and {rows} are "
                "judged; it is for AlpacaEval's 805 instructions alone."
            )
        features["instruction_difficulty"] = calibration.difficulty[:rows]
    features["model"] = np.ones(rows)
    return list(features), np.stack(list(features.values()), axis=1)


def _fit(design: Floats, target: Floats, weights: Floats) -> Floats:
    """Return the coefficients of a logistic regression on probabilities, its penalty chosen by cross-validation.

    Each row enters twice, as won with its probability for a weight and as lost with the rest. The generators are seeded
    as in `LogisticRegressionCV`: one for the ten fits of a fold, a new one for the last fit.
    """
    doubled, won = np.concatenate([design, design]), np.repeat([1, 0], len(target))
    probability, own = np.concatenate([target, 1 - target]), np.concatenate([weights, weights])
    fold = np.tile(leaderboard_folds(len(target)), 2)
    scores = np.zeros(len(STRENGTHS))
    for held_out in range(FOLDS):
        out, generator = fold == held_out, np.random.RandomState(SEED)
        for place, strength in enumerate(STRENGTHS):
            found = _liblinear(doubled[~out], won[~out], (probability * own)[~out], strength, generator)
            guess = np.clip(_logistic(doubled[out] @ found), CLIPPED, 1 - CLIPPED)
            # AlpacaEval's log loss: of each copy the probability of its own outcome, which counts both copies fully.
            true = np.where(won[out] == 1, probability[out], 1 - probability[out])
            scores[place] += np.mean((true * np.log(guess) + (1 - true) * np.log(1 - guess)) * own[out])
    best = STRENGTHS[int(np.argmax(scores))]
    return _liblinear(doubled, won, probability * own, best, np.random.RandomState(SEED))


def _liblinear(
    design: Floats, won: NDArray[np.int64], weights: Floats, strength: float, generator: np.random.RandomState
) -> Floats:
    """Return the coefficients for one strength; a fit that stops at liblinear's limit of steps counts, as there."""
    import sklearn
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    major, minor = (int(part) for part in sklearn.__version__.split(".")[:2])
    l1: dict[str, Any] = {"penalty": "l1"} if (major, minor) < (1, 8) else {"l1_ratio": 1.0}
    model = LogisticRegression(C=strength, solver="liblinear", fit_intercept=False, random_state=generator, **l1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(design, won, sample_weight=weights)
    return np.asarray(model.coef_[0], dtype=np.float64)


def leaderboard_folds(rows: int) -> NDArray[np.int64]:
    """Return the fold of each row as scikit-learn's `GroupKFold` chose it for the leaderboard.

    Before 1.6 it dealt out groups in the order of an unstable sort of their sizes. All sizes are equal here, so the
    order is the one in which NumPy's quicksort leaves equal keys (https://github.com/numpy/numpy, quicksort.cpp),
    without the processor's vector instructions.
    """
    order = list(range(rows))
    parts = [(0, rows - 1)]
    while parts:
        low, high = parts.pop()
        if high - low <= INSERTION:
            continue  # insertion sort leaves equal keys in place
        middle, left, right = low + (high - low) // 2, low + 1, high - 2
        order[middle], order[high - 1] = order[high - 1], order[middle]
        while left < right:
            order[left], order[right] = order[right], order[left]
            left, right = left + 1, right - 1
        order[left], order[high - 1] = order[high - 1], order[left]
        parts += [(low, left - 1), (left + 1, high)]
    fold = np.empty(rows, dtype=np.int64)
    fold[order[::-1]] = np.arange(rows) % FOLDS
    return fold


def _logistic(values: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-values)))
