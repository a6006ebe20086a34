"""Where a model that only answers runs, and how many tokens it can read."""

from typing import Any

import torch

from alignment.meter import say_once
from alignment.policy.prompts import Prompts


def context_limit(model: Any, max_length: int | None = None) -> int | None:
    """Return the most tokens of a sequence: `max_length`, or less where model and soft prompt leave less room."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    taken = virtual_tokens(model)
    room = None if context is None else context - taken
    if taken and room is not None and (max_length is None or max_length > room):
        say_once(
            f"sequences have at most {room:,} tokens: the model's context is {context:,}, the soft prompt {taken:,}"
        )
    limits = [limit for limit in (room, max_length) if limit is not None]
    return min(limits, default=None)


def virtual_tokens(model: Any) -> int:
    """Return how many positions of a model's context its longest soft prompt takes."""
    prompts = getattr(model, "prompts", None)  # of a model with one soft prompt; on the base of roles the decoder's
    if prompts is None and hasattr(model, "get_decoder"):
        prompts = getattr(model.get_decoder(), "soft_prompts", None)
    return prompts.longest if isinstance(prompts, Prompts) else 0


def sequence_limit(model: Any, max_length: int | None) -> int:
    """Return `context_limit`, or a number that no sequence reaches where there is no limit."""
    limit = context_limit(model, max_length)
    return 2**31 if limit is None else limit


def best_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
