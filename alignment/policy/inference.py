"""Where a model that only answers runs, and how many tokens it can read."""

from typing import Any

import torch

from alignment.meter import say_once
from alignment.rollout.context import context_of, virtual_tokens


def context_limit(model: Any, max_length: int | None = None) -> int | None:
    """Return the most tokens of a sequence: `max_length`, or less where model and soft prompt leave less room."""
    room, taken = context_of(model), virtual_tokens(model)
    if taken and room is not None and (max_length is None or max_length > room):
        say_once(
            f"sequences have at most {room:,} tokens: the model's context is {room + taken:,}, the soft prompt "
            f"{taken:,}"
        )
    limits = [limit for limit in (room, max_length) if limit is not None]
    return min(limits, default=None)


def sequence_limit(model: Any, max_length: int | None) -> int:
    """Return `context_limit`, or a number that no sequence reaches where there is no limit."""
    limit = context_limit(model, max_length)
    return 2**31 if limit is None else limit


def best_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
