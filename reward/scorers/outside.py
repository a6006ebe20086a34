"""Scores of answers to the questions of other domains, for stage evaluate: what PPO's scorers compute in process."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignment.config.schema import EvaluateRecipe
from alignment.config.schema.scorers import AnyScorer, columns_of
from alignment.data.load import load_prompts
from alignment.data.rows import Prompt
from alignment.errors import DataError, ScorerError, named_inputs
from alignment.evaluate.questions import Questions
from alignment.train.policy_gradient.monitoring import preserve_random_state
from alignment.train.policy_gradient.scoring import Answered, ColumnScorer, checked_scores
from reward.scorers import module_of, require_scored
from reward.scorers.rows import RowScorer


@dataclass(frozen=True, slots=True)
class WeightedSum:
    """The sum of scorers that apply to a row, each times its weight."""

    parts: Sequence[tuple[AnyScorer, ColumnScorer]]

    def __call__(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[str],
        stopped: Sequence[bool],
        columns: Sequence[Mapping[str, Any]],
    ) -> list[float]:
        """Return one score per answer.

        Raises: ScorerError if a scorer returns anything but one finite number per answer, or none applies.
        """
        totals = [math.nan] * len(answers)
        with preserve_random_state():
            for entry, scorer in self.parts:
                scores = checked_scores(scorer, entry.label, Answered(prompts, answers, stopped, columns=columns))
                for place, score in enumerate(scores):
                    if not math.isnan(score):
                        before = 0.0 if math.isnan(totals[place]) else totals[place]
                        totals[place] = before + entry.weight * score
        if any(map(math.isnan, totals)):
            place = next(place for place, total in enumerate(totals) if math.isnan(total))
            raise ScorerError(f"no scorer applies to the answer {answers[place][:80]!r}; give one that does.")
        return totals


@named_inputs(DataError, ScorerError)  # no work was done yet
def build_questions(recipe: EvaluateRecipe) -> list[Questions]:
    """Read the questions of a recipe and build what scores their answers, before anything is written.

    Raises: DataError if the prompts cannot be read. ScorerError if a scorer cannot be built, or a row not be scored.
    """
    return [_questions(place, recipe) for place in range(len(recipe.outside_questions))]


def _questions(place: int, recipe: EvaluateRecipe) -> Questions:
    entry = recipe.outside_questions[place]
    parts = [(each, module_of(each).build(each, recipe, None)) for each in entry.scorers]
    loaded = load_prompts(
        entry.datasets,
        on_bad_row=recipe.on_bad_row,
        seed=recipe.seed,
        max_samples=entry.max_samples,
        columns=columns_of(entry.scorers),
    )
    for _, scorer in parts:
        if isinstance(scorer, RowScorer):
            scorer.require_columns(loaded.columns, loaded.sources)
    require_scored([scorer for _, scorer in parts], len(parts), loaded)
    longest = entry.max_new_tokens or recipe.max_new_tokens
    return Questions(entry.name, loaded, WeightedSum(parts), longest, entry.temperature)
