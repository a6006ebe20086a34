"""Scorers: where PPO's scores come from, behind `alignment.train.policy_gradient.scoring.Scorer`.

Reward models are loaded here, or are roles on the policy's base; the module of its kind builds every other scorer.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

from alignment.calls.session import JudgeCalls
from alignment.config.schema import PolicyGradientRecipe, scorer_entry
from alignment.config.schema.scorers import AnyScorer, EnsembleEntry
from alignment.data.rows import Prompt
from alignment.data.source_rows import Loaded
from alignment.errors import ModelError, ScorerError, named_inputs
from alignment.policy.reward_models import RewardModel
from alignment.train.policy_gradient.monitoring import Monitor, preserve_random_state
from alignment.train.policy_gradient.scoring import (
    Answered,
    ColumnScorer,
    OutsideScorer,
    ScorePart,
    Scoring,
    checked_scores,
)
from reward.models.ensemble import has_members, member_paths
from reward.models.scoring import RewardScorer
from reward.scorers.judge import judge_calls
from reward.scorers.rows import RowScorer

TRIED = ("An answer.", "Another answer, to try the recipe's functions before a model is loaded: 42.")


def score_entries(recipe: PolicyGradientRecipe) -> Sequence[AnyScorer]:
    """Return the recipe's scorers; `reward_model_path` is one of them."""
    if recipe.reward_model_path is None:
        return recipe.scorers
    kind = "ensemble" if has_members(recipe.reward_model_path) else "reward_model"
    return [
        scorer_entry(kind=kind, model_name_or_path=recipe.reward_model_path, trust_remote_code=recipe.trust_remote_code)
    ]


def reward_models(recipe: PolicyGradientRecipe) -> list[str]:
    """Return every reward model of the scorers once, in descending order of weight.

    The value starts from the first one that is a role.
    """
    return paths_of(sorted(score_entries(recipe), key=lambda entry: -entry.weight))


def paths_of(entries: Sequence[AnyScorer]) -> list[str]:
    """Return every reward model of some scorers once, in their order."""
    return list(dict.fromkeys(path for entry in entries for path in _models(entry)))


def build_scoring(
    recipe: PolicyGradientRecipe, models: Mapping[str, RewardModel], calls: JudgeCalls | None = None
) -> Scoring:
    """Build the weighted sum of the recipe's scorers; a reward model without a role is loaded here.

    Args:
        models: the recipe's reward models by path.
        calls: makes the judges' calls; None: `judge_calls` of the recipe.

    Raises: AlignmentError if a model, a function, an endpoint or a key is not available.
    """
    calls = calls or judge_calls(recipe)
    named = recipe.reward_model_path is None
    own_scale = recipe.normalize_scores == "reward_model"
    sources: dict[str, str | OutsideScorer] = {path: model.role for path, model in models.items() if model.role}
    return Scoring(
        tuple(
            _part(entry, recipe, models, sources, calls, named=named, own_scale=own_scale)
            for entry in score_entries(recipe)
        )
    )


@named_inputs(ScorerError)  # no work was done yet
def build_functions(recipe: PolicyGradientRecipe) -> list[tuple[AnyScorer, ColumnScorer]]:
    """Build every scorer that computes in this process without a model, before the data is read.

    Raises: ScorerError if a function cannot be imported or called, or a schema cannot be read.
    """
    entries = [entry for entry in (*recipe.scorers, *recipe.watch_scorers) if entry.IN_PROCESS]
    return [(entry, module_of(entry).build(entry, recipe, None)) for entry in entries]


@named_inputs(ScorerError)  # no work was done yet
def try_functions(
    recipe: PolicyGradientRecipe, functions: Sequence[tuple[AnyScorer, ColumnScorer]], loaded: Loaded[Prompt]
) -> None:
    """Score answers to the first two prompts by the scorers of `build_functions`, and check the columns of every row.

    A wrong number of scores, NaN, or a row that cannot be scored ends the run here, before a model is loaded.

    Raises: ScorerError.
    """
    prompts = loaded.rows[: len(TRIED)]
    answers = TRIED[: len(prompts)]
    given = Answered(prompts, answers, [True for _ in answers], columns=loaded.columns[: len(prompts)])
    for entry, scorer in functions:
        with preserve_random_state():
            if isinstance(scorer, RowScorer):
                scorer.require_columns(loaded.columns, loaded.sources)
            checked_scores(scorer, entry.label, given)
    require_scored([scorer for entry, scorer in functions if entry in recipe.scorers], len(recipe.scorers), loaded)


def try_scorers(recipe: PolicyGradientRecipe, loaded: Loaded[Prompt] | None) -> list[str]:
    """Build the scorers of `build_functions`, try them as a run does, and return their names.

    Args:
        loaded: the data; None: the scorers are built only.

    Raises: ScorerError.
    """
    functions = build_functions(recipe)
    if loaded is not None:
        try_functions(recipe, functions, loaded)
    return [entry.label for entry, _ in functions]


def require_scored(scorers: Sequence[ColumnScorer], count: int, loaded: Loaded[Prompt]) -> None:
    """Refuse a row to which no scorer applies.

    Args:
        count: of all scorers; those that do not check rows one by one may apply to any row.

    Raises: ScorerError.
    """
    checks = [scorer for scorer in scorers if isinstance(scorer, RowScorer)]
    if not checks or len(checks) < count:
        return
    for columns, source in zip(loaded.columns or [{} for _ in loaded.rows], loaded.sources, strict=True):
        if not any(scorer.applies(columns) for scorer in checks):
            wanted = " or ".join(dict.fromkeys(name for scorer in checks for name in scorer.reads))
            raise ScorerError(
                f"{source}: no scorer applies to the row, which has no {wanted}; add it, or take the row out."
            )


def build_monitor(
    recipe: PolicyGradientRecipe, models: Mapping[str, RewardModel], calls: JudgeCalls | None = None
) -> Monitor | None:
    """Build the scorers of `watch_scorers`, none of which is a role; None if there are none.

    Args:
        models: their reward models by path.
        calls: as `build_scoring`.

    Raises: AlignmentError as `build_scoring`.
    """
    if not recipe.watch_scorers:
        return None
    sources: dict[str, str | OutsideScorer] = {}
    calls = replace(calls or judge_calls(recipe), prefix="watch_")
    with preserve_random_state():
        parts = tuple(
            _part(entry, recipe, models, sources, calls, named=True, own_scale=False) for entry in recipe.watch_scorers
        )
    updates = recipe.total_episodes // recipe.rollout_batch_size
    return Monitor(Scoring(parts), recipe.watch_interval, updates)


def score_part(entry: AnyScorer, recipe: PolicyGradientRecipe) -> ScorePart:
    """Build one scorer outside a policy's base; a reward model is loaded.

    Raises: AlignmentError if a model or a function is not available.
    """
    return _part(entry, recipe, {}, {}, None, named=True, own_scale=False)


def _part(
    entry: AnyScorer,
    recipe: PolicyGradientRecipe,
    models: Mapping[str, RewardModel],
    sources: dict[str, str | OutsideScorer],
    calls: JudgeCalls | None,
    *,
    named: bool,
    own_scale: bool,
) -> ScorePart:
    """Build one term.

    Args:
        sources: reward model → its role or loaded scorer; models that no earlier term uses are loaded into it.
    """
    for path in _models(entry):
        if path not in sources:
            sources[path] = RewardScorer.load(
                path,
                batch_size=recipe.rollout_eval_batch_size,
                trust_remote_code=getattr(entry, "trust_remote_code", False),
            )
    aggregate, penalty = entry.aggregation
    return ScorePart(
        tuple(sources[path] for path in _models(entry)) or (module_of(entry).build(entry, recipe, calls),),
        name=entry.label if named else "",
        weight=entry.weight,
        aggregate=aggregate,
        uncertainty_penalty=penalty,
        scales=tuple(_scale(models[path]) for path in _models(entry)) if own_scale else (),
    )


def describe(entries: Sequence[AnyScorer], scoring: Scoring, models: Mapping[str, RewardModel]) -> list[dict[str, Any]]:
    """Return each scorer's record for the manifest: its kind, and hashes of what determines its scores.

    Args:
        entries: those that `scoring` was built from. models: their reward models by path.
    """
    found = []
    for entry, part in zip(entries, scoring.parts, strict=True):
        what: dict[str, Any] = {"name": entry.label, "kind": entry.kind, "weight": entry.weight}
        if _models(entry):
            used = [models[path] for path in _models(entry)]
            what["models"] = [
                {"path": model.path, "weights_sha256": model.weights_sha256, "role": model.role} for model in used
            ]
        else:
            what |= part.sources[0].identity  # type: ignore[union-attr] # all kinds but reward models have one
        found.append(what)
    return found


def _scale(model: RewardModel) -> tuple[float, float]:
    """Mean and standard deviation of a reward model's scores in its training."""
    if model.scale is None:
        raise ModelError(
            f"{model.path} has no mean and standard deviation of its scores (score_mean and score_std of a run's "
            "manifest.json), or the standard deviation is 0; use normalize_scores: running"
        )
    return model.scale


def _models(entry: AnyScorer) -> list[str]:
    if isinstance(entry, EnsembleEntry):
        return [path for name in entry.models for path in member_paths(name)]
    for path in entry.models:
        if has_members(path):
            raise ModelError(f"scorer {entry.label}: {path} is an ensemble; use kind: ensemble.")
    return entry.models


def module_of(entry: AnyScorer) -> ModuleType:
    """Return the module that builds scorers of an entry's kind."""
    return importlib.import_module(f"reward.scorers.{entry.kind}")
