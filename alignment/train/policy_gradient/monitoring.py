"""Scorers that are logged during training but are no part of the reward; they show when a score is over-optimised."""

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alignment.train.policy_gradient.scoring import Scoring


@dataclass(frozen=True, slots=True)
class Monitor:
    """Scorers outside the base that score the answers of every `interval`-th update and of the last."""

    scoring: Scoring
    interval: int
    updates: int  # of the run

    def is_due(self, update: int) -> bool:
        """Whether the answers of an update are scored; the first update is 0."""
        return update % self.interval == 0 or update == self.updates - 1

    def metrics(self, scores: Tensor) -> dict[str, float]:
        """Return each part's mean and its standard deviation over answers, for the log.

        Args:
            scores: (scorers, answers).
        """
        parts = self.scoring.combine({}, scores, monitored=True).parts
        found = {}
        for part in self.scoring.parts:
            applies = parts[part.name][~parts[part.name].isnan()]
            if len(applies):
                found[f"watch_{part.name}"] = float(applies.mean())
                found[f"watch_{part.name}_spread"] = float(applies.std(correction=0))
        return found


@contextlib.contextmanager
def preserve_random_state() -> Iterator[None]:
    """Restore the state of every random number generator at the end, so that the code inside changes nothing after it.

    A scorer may draw random numbers, and loading a classifier draws a head before its weights replace it.
    """
    python, arrays, tensors = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)
        torch.set_rng_state(tensors)
        if devices:
            torch.cuda.set_rng_state_all(devices)
