"""From scores to the rewards that the policy maximises."""

from dataclasses import dataclass

import torch
from torch import Tensor

from alignment.config.schema import PolicyGradientRecipe


@dataclass(slots=True)
class RunningMoments:
    """Mean and standard deviation of all values so far, by the parallel update of Chan et al."""

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared deviations

    def update(self, values: Tensor) -> None:
        """Add a batch of values."""
        batch = values.double()
        n, mean = float(batch.numel()), float(batch.mean())
        squares = float(((batch - mean) ** 2).sum())
        total = self.count + n
        self.squares += squares + (mean - self.mean) ** 2 * self.count * n / total
        self.mean += (mean - self.mean) * n / total
        self.count = total

    @property
    def std(self) -> float:
        """Standard deviation, n-1 in the denominator; 1 if it is below 1e-6."""
        std = (self.squares / (self.count - 1)) ** 0.5 if self.count > 1 else 0.0
        return std if std > 1e-6 else 1.0


class ScoreShaping:
    """Normalises scores, clips them, and replaces or lowers those of truncated answers, in that order."""

    def __init__(self, recipe: PolicyGradientRecipe) -> None:
        self.recipe = recipe
        self.moments = RunningMoments()

    def shape(self, scores: Tensor, stopped: Tensor) -> Tensor:
        """Return one rollout's rewards, (answers,), after adding its scores to the running moments.

        `normalize_scores: reward_model` is applied earlier, in `Scoring`: each term of the sum has a scale of its own.

        Args:
            scores: (answers,). stopped: (answers,) bool, True if the answer ended with a stop token.
        """
        self.moments.update(scores)
        return self.of(scores, stopped)

    def of(self, scores: Tensor, stopped: Tensor) -> Tensor:
        """Return the rewards of scores, (answers,), by the moments so far."""
        recipe = self.recipe
        if recipe.normalize_scores == "running":
            scores = (scores - self.moments.mean) / self.moments.std
        if recipe.reward_clip is not None:
            scores = scores.clamp(-recipe.reward_clip, recipe.reward_clip)
        if recipe.value is not None and recipe.value.bootstrap_truncated:
            # the value of the last state replaces the score of a truncated answer
            scores = torch.where(stopped, scores, 0.0)
        if recipe.missing_eos_penalty is not None:
            scores = torch.where(stopped, scores, scores - recipe.missing_eos_penalty)
        return scores

    def state(self) -> list[float]:
        """Return the running moments."""
        return [self.moments.count, self.moments.mean, self.moments.squares]

    def load_state(self, state: list[float]) -> None:
        """Restore what `state` returned."""
        self.moments = RunningMoments(*state)
