"""Strengths of several models from all pairs of them: Bradley and Terry's model with Davidson's ties.

Davidson 1970, eq. 2.3 (https://doi.org/10.1080/01621459.1970.10481082): with strengths p_i and a number nu for ties,

    P(i wins) = p_i / (p_i + p_j + nu sqrt(p_i p_j)),    P(tie) = nu sqrt(p_i p_j) / (p_i + p_j + nu sqrt(p_i p_j))

Without a tie in the data, nu is 0 and the model is Bradley and Terry's. Strengths are ln p in nats, their mean 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.errors import DataError
from alignment.evaluate.statistics import Bootstrap, wins
from alignment.standings.battles import Battle
from alignment.standings.rates import probabilities

Floats = NDArray[np.float64]
ELO = 400 / np.log(10)  # points of a nat
MIDDLE = 1000.0  # points of the mean strength
VIRTUAL = 0.5  # ties added to each compared pair where the maximum is not finite
STEPS, TOLERANCE = 200, 1e-10
HALVINGS = 40  # of a Newton step at most
RIDGE = 1e-9  # keeps the curvature invertible


@dataclass(frozen=True, slots=True)
class Strengths:
    """The maximum likelihood estimate."""

    values: Floats  # (models,) nats, mean 0
    ties: float  # Davidson's nu
    bounded: bool  # whether the data alone have a finite maximum; else half a tie was added to each compared pair

    @property
    def tie_probability(self) -> float:
        """Probability of a tie between equally strong models."""
        return 1.0 if np.isinf(self.ties) else self.ties / (2 + self.ties)


def leaderboard(battles: Sequence[Battle], how: Bootstrap) -> dict[str, Any]:
    """Return the models of one judge in order of strength, with intervals that resample prompts.

    `win_rate` is the expected share of points against the others, ties half, each other model counting once; `rank`
    counts the models that are surely better: those whose interval lies above.

    Raises: DataError if no chain of comparisons connects two models.
    """
    usable = [battle for battle in battles if battle.usable and battle.first != battle.second]
    models = sorted({name for battle in usable for name in (battle.first, battle.second)})
    outcomes = _outcomes(usable, models)
    total = outcomes.total()
    _require_connected(total, models)
    found = fit(total)
    drawn = _resampled(outcomes, found, how)
    strengths = _with_ends(found.values, drawn, how)
    rates = _with_ends(expected(found), np.stack([expected(one) for one in drawn]) if drawn else None, how)
    order = np.argsort(-found.values, kind="stable")
    played = total.sum(axis=2)
    rows = [
        {
            "model": models[i],
            "rank": 1 + sum(_above(strengths[j], strengths[i]) for j in range(len(models))),
            "elo": _elo(strengths[i]),
            "strength": strengths[i],
            "win_rate": rates[i],
            "comparisons": int(played[i].sum() + played[:, i].sum()),
            "wins": int(total[i, :, 0].sum() + total[:, i, 2].sum()),
            "ties": int(total[i, :, 1].sum() + total[:, i, 1].sum()),
            "losses": int(total[i, :, 2].sum() + total[:, i, 0].sum()),
        }
        for i in order
    ]
    return {
        "models": rows,
        "tie_probability": found.tie_probability,
        "bounded": found.bounded,
        "n": len(usable),
        "prompts": outcomes.prompts,
        "predicted": {models[i]: {models[j]: float(_pair(found, i, j)) for j in order if j != i} for i in order},
    }


def fit(total: Floats, start: Strengths | None = None) -> Strengths:
    """Return the maximum likelihood strengths by Newton's method.

    Args:
        total: (models, models, 3) wins of the first, ties, wins of the second, for first < second.
        start: where the method starts; None: equal strengths.
    """
    bounded = _is_bounded(total)
    if not bounded:
        total = total + VIRTUAL * (total.sum(axis=2, keepdims=True) > 0) * np.array([0.0, 1.0, 0.0])
    if not total[:, :, [0, 2]].any():  # ties alone: all are equal, and no number for ties is the largest
        return Strengths(np.zeros(len(total)), np.inf, bounded)
    first, second = np.nonzero(total.sum(axis=2))
    counted = total[first, second]
    size, with_ties = len(total), bool(counted[:, 1].sum())
    values = np.zeros(size + with_ties)
    if start is not None and start.bounded == bounded and (start.ties > 0) == with_ties and np.isfinite(start.ties):
        values = np.append(start.values, np.log(start.ties)) if with_ties else start.values.copy()
    features = _features(first, second, size, with_ties)  # (pairs, outcomes, parameters)
    likelihood, gradient, curvature = _derivatives(values, features, counted, size)
    for _ in range(STEPS):
        step = np.linalg.solve(curvature, gradient)
        for _ in range(HALVINGS):  # a full step may overshoot far from the maximum
            tried = values + step
            tried[:size] -= tried[:size].mean()
            after = _derivatives(tried, features, counted, size)
            if after[0] >= likelihood - TOLERANCE:
                break
            step = step / 2
        values, (likelihood, gradient, curvature) = tried, after
        if np.abs(step).max() < TOLERANCE:
            break
    return Strengths(values[:size], float(np.exp(values[size])) if with_ties else 0.0, bounded)


def _derivatives(values: Floats, features: Floats, counted: Floats, size: int) -> tuple[float, Floats, Floats]:
    """Return the log-likelihood, its gradient, and minus its second derivative, at which strengths have mean 0."""
    logits = features @ values
    if len(values) == size:
        logits[:, 1] = -np.inf  # without ties
    logits -= logits.max(axis=1, keepdims=True)
    share = np.exp(logits)
    whole = share.sum(axis=1, keepdims=True)
    share /= whole
    games, mean = counted.sum(axis=1), (share[:, None, :] @ features)[:, 0]
    taken = np.where(counted > 0, logits - np.log(whole), 0.0)
    gradient = counted.ravel() @ features.reshape(-1, features.shape[2]) - games @ mean
    spread = (np.sqrt(games[:, None] * share)[:, :, None] * (features - mean[:, None, :])).reshape(-1, len(values))
    curvature = spread.T @ spread
    curvature[:size, :size] += 1.0 / size  # strengths have no zero of their own
    return float((counted * taken).sum()), gradient, curvature + RIDGE * np.eye(len(values))


def expected(found: Strengths) -> Floats:
    """Return each model's expected share of points against the others, ties half, (models,)."""
    size = len(found.values)
    points = [[_pair(found, i, j) for j in range(size) if j != i] for i in range(size)]
    return np.asarray(points, dtype=np.float64).mean(axis=1)


def _pair(found: Strengths, i: int, j: int) -> float:
    """Return the expected points of i against j: P(i wins) + P(tie) / 2."""
    gap = (found.values[i] - found.values[j]) / 2
    tie = found.ties
    if np.isinf(tie):
        return 0.5
    return float((np.exp(gap) + tie / 2) / (np.exp(gap) + np.exp(-gap) + tie))


def _features(first: NDArray[np.int64], second: NDArray[np.int64], size: int, with_ties: bool) -> Floats:
    """Return what each outcome of each pair adds to its logit, (pairs, outcomes, parameters)."""
    features = np.zeros((len(first), 3, size + with_ties))
    pairs = np.arange(len(first))
    features[pairs, 0, first] = 1.0
    features[pairs, 2, second] = 1.0
    features[pairs, 1, first] = features[pairs, 1, second] = 0.5
    if with_ties:
        features[:, 1, size] = 1.0
    return features


@dataclass(frozen=True, slots=True)
class _Outcomes:
    """Every usable judgement: its prompt, and its place in a table of (first, second, outcome) with first < second."""

    prompt: NDArray[np.int64]  # (judgements,) from 0
    place: NDArray[np.int64]  # (judgements,)
    prompts: int
    models: int

    def total(self, times: Floats | None = None) -> Floats:
        """Return the table, (models, models, 3); `times`: (prompts,) how often each prompt counts."""
        weights = None if times is None else times[self.prompt]
        counts = np.bincount(self.place, weights, minlength=3 * self.models**2)
        return counts.astype(np.float64).reshape(self.models, self.models, 3)


def _outcomes(battles: Sequence[Battle], models: Sequence[str]) -> _Outcomes:
    number = {name: index for index, name in enumerate(models)}
    prompts: dict[str, int] = {}
    clusters, places = [], []
    points = wins(probabilities(battles))
    for battle, won in zip(battles, points, strict=True):
        first, second = number[battle.first], number[battle.second]
        outcome = {1.0: 0, 0.5: 1, 0.0: 2}[float(won)]
        if first > second:
            first, second, outcome = second, first, 2 - outcome
        clusters.append(prompts.setdefault(battle.cluster, len(prompts)))
        places.append((first * len(models) + second) * 3 + outcome)
    return _Outcomes(np.asarray(clusters), np.asarray(places), len(prompts), len(models))


def _resampled(outcomes: _Outcomes, found: Strengths, how: Bootstrap) -> list[Strengths]:
    """Return the estimates on resamplings of the prompts; one that does not connect all models is left out."""
    if outcomes.prompts == 1:
        return []
    generator, each = np.random.default_rng(how.seed), np.full(outcomes.prompts, 1 / outcomes.prompts)
    drawn = (generator.multinomial(outcomes.prompts, each).astype(np.float64) for _ in range(how.samples))
    totals = map(outcomes.total, drawn)
    return [fit(total, found) for total in totals if len(_parts(_played(total))) == 1]


def _with_ends(values: Floats, drawn: Any, how: Bootstrap) -> list[dict[str, float | None]]:
    if drawn is None or not len(drawn):
        return [{"value": float(value), "low": None, "high": None} for value in values]
    rows = np.stack([one.values for one in drawn]) if isinstance(drawn, list) else drawn
    low, high = np.quantile(rows, [(1 - how.level) / 2, (1 + how.level) / 2], axis=0)
    return [
        {"value": float(value), "low": float(a), "high": float(b)}
        for value, a, b in zip(values, low, high, strict=True)
    ]


def _elo(strength: dict[str, float | None]) -> dict[str, float | None]:
    return {key: None if value is None else MIDDLE + float(ELO * value) for key, value in strength.items()}


def _above(one: dict[str, float | None], other: dict[str, float | None]) -> bool:
    return one["low"] is not None and other["high"] is not None and one["low"] > other["high"]


def _played(total: Floats) -> NDArray[np.bool_]:
    games = total.sum(axis=2) > 0
    return np.asarray(games | games.T)


def _is_bounded(total: Floats) -> bool:
    """Whether a finite maximum exists: every model reaches every other by models that won or tied (Ford 1957)."""
    scored = (total[:, :, 0] + total[:, :, 1] > 0) | (total[:, :, 2] + total[:, :, 1] > 0).T
    reach = scored | np.eye(len(total), dtype=bool)
    for _ in range(len(total)):
        reach = reach @ reach
    return bool(reach.all())


def _parts(played: NDArray[np.bool_]) -> list[list[int]]:
    """Return the groups of models that comparisons connect."""
    left, groups = set(range(len(played))), []
    while left:
        group, todo = set(), [min(left)]
        while todo:
            model = todo.pop()
            if model not in group:
                group.add(model)
                todo += [int(other) for other in np.nonzero(played[model])[0]]
        groups.append(sorted(group))
        left -= group
    return groups


def _require_connected(total: Floats, models: Sequence[str]) -> None:
    groups = _parts(_played(total))
    if len(groups) > 1:
        named = "; ".join(", ".join(models[i] for i in group) for group in groups)
        raise DataError(
            f"no chain of comparisons connects these groups of models, which have no common order: {named}."
        )
