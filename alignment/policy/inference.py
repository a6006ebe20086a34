"""Where a model that only answers runs, and how many tokens it can read."""

from typing import Any

import torch


def context_limit(model: Any, max_length: int | None = None) -> int | None:
    """Most tokens a sequence may have: `max_length`, or less where the model cannot read as many."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    limits = [limit for limit in (context, max_length) if limit is not None]
    return min(limits, default=None)


def sequence_limit(model: Any, max_length: int | None) -> int:
    """Return `context_limit`, or a number that no sequence reaches where there is no limit."""
    limit = context_limit(model, max_length)
    return 2**31 if limit is None else limit


def best_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
