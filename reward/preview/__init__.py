"""What `alignment preview` shows of the stages that reward models and judges take part in."""

from collections.abc import Callable
from typing import Any

from alignment.preview.rows import Stage
from reward.preview.prompts import evaluated, labelled, sampled
from reward.preview.rankings import rankings

STAGES: dict[str, Callable[[Any, Any], Stage]] = {
    "reward": rankings,
    "label": labelled,
    "ppo": sampled,
    "evaluate": evaluated,
}

__all__ = ["STAGES"]
