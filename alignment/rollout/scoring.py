"""What PPO asks of a reward that is not one of its own roles."""

from typing import Protocol

from alignment.data.rows import Prompt


class Scorer(Protocol):
    """Scores answers: a reward model on another base, a function, an endpoint."""

    def score(self, prompts: list[Prompt], answers: list[str]) -> list[float]:
        """Return one score per answer, higher is better; zero is a score like any other."""
        ...
