"""From a scorer's scores to the rewards that PPO maximises."""

from dataclasses import dataclass

import torch
from torch import Tensor

from alignment.config.schema import PPORecipe


@dataclass(slots=True)
class RunningMoments:
    """Mean and standard deviation of everything seen, Chan et al.'s parallel update."""

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared deviations

    def update(self, values: Tensor) -> None:
        """Take in a batch."""
        batch = values.double()
        n, mean = float(batch.numel()), float(batch.mean())
        squares = float(((batch - mean) ** 2).sum())
        total = self.count + n
        self.squares += squares + (mean - self.mean) ** 2 * self.count * n / total
        self.mean += (mean - self.mean) * n / total
        self.count = total

    @property
    def std(self) -> float:
        """Standard deviation, n-1 in the denominator; 1 where there is none to speak of."""
        std = (self.squares / (self.count - 1)) ** 0.5 if self.count > 1 else 0.0
        return std if std > 1e-6 else 1.0


class ScoreShaping:
    """Scores as rewards: normalised, clipped, replaced or lowered where the answer was cut off; in that order."""

    def __init__(self, recipe: PPORecipe) -> None:
        self.recipe = recipe
        self.moments = RunningMoments()

    def shape(self, scores: Tensor, stopped: Tensor) -> Tensor:
        """One rollout's rewards, (answers,); its scores join the running moments first.

        `reward_model` is no business of this place: a sum's terms each have a scale of their own, see `Scoring`.

        Args:
            scores: (answers,). stopped: (answers,) bool, whether each ended by itself.
        """
        recipe = self.recipe
        self.moments.update(scores)
        if recipe.normalize_scores == "running":
            scores = (scores - self.moments.mean) / self.moments.std
        if recipe.reward_clip is not None:
            scores = scores.clamp(-recipe.reward_clip, recipe.reward_clip)
        if recipe.bootstrap_truncated:  # what a whole answer would have scored is in the value of where it was cut off
            scores = torch.where(stopped, scores, 0.0)
        if recipe.missing_eos_penalty is not None:
            scores = torch.where(stopped, scores, scores - recipe.missing_eos_penalty)
        return scores

    def state(self) -> list[float]:
        """The running moments."""
        return [self.moments.count, self.moments.mean, self.moments.squares]

    def load_state(self, state: list[float]) -> None:
        """Go on from where `state` was taken."""
        self.moments = RunningMoments(*state)
