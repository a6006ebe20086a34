"""Scorers: where PPO's scores come from, one file per kind behind `alignment.train.policy_gradient.scoring.Scorer`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from alignment.calls.caller import Caller
from alignment.calls.rate_limiter import RateLimiter
from alignment.calls.store import CallStore
from alignment.config.schema import PPORecipe, ScorerEntry
from alignment.errors import ModelError
from alignment.manifest import read_manifest
from alignment.policy.base import resolve_model
from alignment.policy.weights import weights_hash
from alignment.train.policy_gradient.monitoring import Monitor, preserve_random_state
from alignment.train.policy_gradient.scoring import ScorePart, Scorer, Scoring
from reward.models.ensemble import has_members, member_paths
from reward.models.scoring import RewardScorer


def score_entries(recipe: PPORecipe) -> list[ScorerEntry]:
    """Return the recipe's scorers; `reward_model_path` is one of them."""
    if recipe.reward_model_path is None:
        return recipe.scorers
    kind: Literal["reward_model", "ensemble"] = "ensemble" if has_members(recipe.reward_model_path) else "reward_model"
    return [
        ScorerEntry(kind=kind, model_name_or_path=recipe.reward_model_path, trust_remote_code=recipe.trust_remote_code)
    ]


def reward_models(recipe: PPORecipe) -> list[str]:
    """Return every reward model that the scorers name, once, by falling weight, else in their order.

    The first that is a role is what the value starts from, so it is one that the policy is to climb, no watcher.
    """
    entries = sorted(score_entries(recipe), key=lambda entry: -entry.weight)
    return list(dict.fromkeys(path for entry in entries for path in _models(entry)))


def build_scoring(recipe: PPORecipe, roles: Mapping[str, str]) -> Scoring:
    """Return the sum that the recipe asks for, every source ready to be asked.

    Args:
        roles: reward model → its role, for those that stand on the policy's base; others are loaded here.

    Raises: AlignmentError where a model, a function, an endpoint or a key cannot be had.
    """
    named = recipe.reward_model_path is None
    own_scale = recipe.normalize_scores == "reward_model"
    models: dict[str, str | Scorer] = dict(roles)
    return Scoring(
        tuple(_part(entry, recipe, models, named=named, own_scale=own_scale) for entry in score_entries(recipe))
    )


def build_watch(recipe: PPORecipe) -> Monitor | None:
    """Return what watches, every source ready to be asked and none a role; None where nothing does.

    Raises: AlignmentError as `build_scoring`.
    """
    if not recipe.watch_scorers:
        return None
    models: dict[str, str | Scorer] = {}
    with preserve_random_state():
        parts = tuple(
            _part(entry, recipe, models, named=True, own_scale=False, calls="watch_") for entry in recipe.watch_scorers
        )
    updates = recipe.total_episodes // recipe.rollout_batch_size
    return Monitor(Scoring(parts), recipe.watch_interval, updates)


def _part(
    entry: ScorerEntry,
    recipe: PPORecipe,
    models: dict[str, str | Scorer],
    *,
    named: bool,
    own_scale: bool,
    calls: str = "",
) -> ScorePart:
    """One term; models that no earlier term has asked for are loaded into `models`.

    Args:
        calls: what a judge's store of calls is called by, before its name.
    """
    for path in _models(entry):
        if path not in models:
            models[path] = RewardScorer.load(
                path, batch_size=recipe.rollout_eval_batch_size, trust_remote_code=entry.trust_remote_code
            )
    return ScorePart(
        tuple(models[path] for path in _models(entry)) or (_outside(entry, recipe, calls),),
        name=entry.label if named else "",
        weight=entry.weight,
        aggregate=entry.aggregate,
        uncertainty_penalty=entry.uncertainty_penalty,
        scales=tuple(_scale(path) for path in _models(entry)) if own_scale else (),
    )


def describe(recipe: PPORecipe, scoring: Scoring) -> list[dict[str, Any]]:
    """Return what the manifest keeps of each scorer: what it is, and hashes of what decides its scores."""
    return _described(score_entries(recipe), scoring)


def describe_watch(recipe: PPORecipe, watch: Monitor) -> list[dict[str, Any]]:
    """Return what the manifest keeps of what watches."""
    return _described(recipe.watch_scorers, watch.scoring)


def _described(entries: Sequence[ScorerEntry], scoring: Scoring) -> list[dict[str, Any]]:
    found = []
    for entry, part in zip(entries, scoring.parts, strict=True):
        source = part.sources[0]
        what: dict[str, Any] = {"name": entry.label, "kind": entry.kind, "weight": entry.weight}
        if _models(entry):
            what["models"] = [
                {"path": path, "weights_sha256": weights_hash(resolve_model(path).newest), "role": _role(of)}
                for path, of in zip(_models(entry), part.sources, strict=True)
            ]
        else:
            what |= source.identity  # type: ignore[union-attr] # the kinds that `_outside` makes have one
        found.append(what)
    return found


def _scale(path: str) -> tuple[float, float]:
    """Mean and standard deviation of a reward model's scores, as its training left them in the manifest."""
    manifest = read_manifest(path)
    mean, std = manifest.get("score_mean"), manifest.get("score_std")
    if mean is None or std is None or std <= 0:
        raise ModelError(
            f"{path} does not say what its scores' mean and standard deviation are (score_mean and score_std "
            "of a run's manifest.json), or they do not differ; use normalize_scores: running"
        )
    return mean, std


def _role(source: str | Scorer) -> str | None:
    return source if isinstance(source, str) else None


def _models(entry: ScorerEntry) -> list[str]:
    named = [entry.model_name_or_path] if entry.model_name_or_path else entry.reward_models
    if entry.kind == "reward_model" and has_members(named[0]):
        raise ModelError(f"scorer {entry.label}: {named[0]} holds an ensemble; write kind: ensemble.")
    return [path for name in named for path in member_paths(name)] if entry.kind == "ensemble" else named


def _outside(entry: ScorerEntry, recipe: PPORecipe, calls: str) -> Scorer:
    if entry.kind == "function":
        from reward.scorers.function import FunctionScorer

        return FunctionScorer.from_entry(entry)
    if entry.kind == "http":
        from reward.scorers.http import HttpScorer

        return HttpScorer.from_entry(entry, batch_size=recipe.rollout_eval_batch_size)
    from reward.scorers.judge import JudgeScorer

    judge = entry.judge
    return JudgeScorer.from_entry(
        entry,
        Caller(
            cache=_calls_of(calls + entry.label, recipe),
            rate_limiter=RateLimiter(judge.at_once(entry.max_concurrency) if judge else entry.max_concurrency),
            max_retries=judge.max_retries if judge else 0,
        ),
    )


def _calls_of(name: str, recipe: PPORecipe) -> CallStore | None:
    """Open the store of a judge's calls in the run's folder, one a process; without a folder nothing is kept."""
    folder, rank = Path(recipe.output_dir), os.environ.get("RANK", "0")
    if not folder.is_dir():
        return None
    return CallStore(folder / f"calls_{name}{'' if rank == '0' else f'_{rank}'}.sqlite")
