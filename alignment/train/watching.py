"""Scorers that are asked beside training and never enter it: what they say tells when a score is over-optimised."""

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alignment.train.scoring import Scoring


@dataclass(frozen=True, slots=True)
class Watch:
    """Scorers outside the base, asked about the answers of every `interval`-th update and of the last."""

    scoring: Scoring
    interval: int
    updates: int  # of the run

    def is_due(self, update: int) -> bool:
        """Whether an update's answers are scored; the first is 0."""
        return update % self.interval == 0 or update == self.updates - 1

    def metrics(self, told: Tensor) -> dict[str, float]:
        """What is logged of (scorers, answers): each part's mean, and its spread over answers."""
        parts = self.scoring.combine({}, told).parts
        found = {}
        for part in self.scoring.parts:
            found[f"watch_{part.name}"] = float(parts[part.name].mean())
            found[f"watch_{part.name}_spread"] = float(parts[part.name].std(correction=0))
        return found


@contextlib.contextmanager
def untouched_randomness() -> Iterator[None]:
    """Give every generator of random numbers back as it was found, so that what is done inside changes nothing after.

    A scorer may draw numbers, and loading a classifier draws the head that its weights then replace.
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
