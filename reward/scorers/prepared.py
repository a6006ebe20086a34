"""Scorers of rows of data, for the step `score` of stage prepare."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from alignment.calls.session import STORE, caller_of, recording, usage
from alignment.calls.store import CallStore
from alignment.config.schema.prepare import PrepareRecipe
from alignment.config.schema.scorers import AnyScorer, JudgeScorerEntry
from alignment.config.schema.steps.scores import ScoreEntry
from alignment.data.prepare.score import Answer, Score
from alignment.errors import JudgeError, ModelError, ScorerError, named_inputs
from alignment.train.policy_gradient.scoring import Answered, OutsideScorer, ScorePart, checked_scores
from reward.scorers import score_part
from reward.scorers.judge import JudgeScorer


class RowsScorer:
    """Scores answers of data by the sources of one scorer."""

    def __init__(self, entry: AnyScorer, part: ScorePart, opened: Callable[[], AbstractContextManager[Any]]) -> None:
        self.entry, self.part, self.opened = entry, part, opened
        self.tries = entry.IN_PROCESS

    def score(self, answers: Sequence[Answer]) -> list[float | None]:
        """Return a score for each answer; None where the scorer does not apply.

        Raises: ScorerError, JudgeError, DataError as the scorers.
        """
        given = Answered(
            [each.prompt for each in answers],
            [each.answer for each in answers],
            [True for _ in answers],
            columns=[each.columns for each in answers],
        )
        with named_inputs(ScorerError):
            members = [checked_scores(_outside(each), self.entry.label, given) for each in self.part.sources]
        scores = self.part.of(torch.tensor(members, dtype=torch.float64)) if answers else torch.zeros(0)
        return [None if score != score else score for score in scores.tolist()]


class _Ratings:
    """A judge, whose replies without a number give no score in place of an error: one row must not end the stage."""

    def __init__(self, judge: JudgeScorer) -> None:
        self.judge = judge

    def score_rows(self, given: Answered) -> list[float | None]:
        """Return the ratings."""
        return self.judge.ratings(given.prompts, given.answers)


def score_builder(recipe: PrepareRecipe) -> Callable[[ScoreEntry, int], Score]:
    """Return the function that builds steps of kind score; the judges of a recipe share one store and one budget."""
    entries = _judges(recipe)

    def build(step: ScoreEntry, seed: int) -> Score:
        if step.scorer is None:
            return Score(step, None)
        with named_inputs(ScorerError, JudgeError, ModelError):  # nothing was done yet
            return Score(step, _scorer(step, step.scorer))

    def _scorer(step: ScoreEntry, entry: AnyScorer) -> RowsScorer:
        if not isinstance(entry, JudgeScorerEntry):
            settings: Any = SimpleNamespace(rollout_eval_batch_size=step.batch_size)
            return RowsScorer(entry, score_part(entry, settings), nullcontext)
        caller = caller_of(entry.judge, recipe, entry.max_concurrency)
        part = ScorePart((_Ratings(JudgeScorer.from_entry(entry, caller)),))
        judges = [each.judge for each in entries]
        return RowsScorer(entry, part, lambda: recording(Path(recipe.output_dir), judges, recipe, [caller]))

    return build


def judged(recipe: PrepareRecipe) -> dict[str, Any]:
    """Return the number, tokens and cost of the calls of a run's judges, for its manifest; nothing without judges."""
    judges = [entry.judge for entry in _judges(recipe)]
    path = Path(recipe.output_dir) / STORE
    if not judges or not path.is_file():
        return {}
    with CallStore(path) as store:
        return {"usage": usage(store, judges)}


def _judges(recipe: PrepareRecipe) -> list[JudgeScorerEntry]:
    steps = [step for step in recipe.steps if isinstance(step, ScoreEntry)]
    return [step.scorer for step in steps if isinstance(step.scorer, JudgeScorerEntry)]


def _outside(source: str | OutsideScorer) -> OutsideScorer:
    assert not isinstance(source, str)
    return source
