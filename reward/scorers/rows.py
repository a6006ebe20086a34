"""The rows that a scorer reads one by one: their names in messages, and the row at which a scorer fails."""

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from alignment.data.rows import Prompt
from alignment.run.signals import Terminated
from reward.time_limit import Expired, call_within

Scores = list[float | None]  # None: the scorer does not apply to the row
NO_TOKENS: list[int] = []  # of an answer that is known as text alone


def row_name(prompt: Prompt, answer: str) -> str:
    """Return a prompt and an answer as messages name them, shortened."""
    words = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    return f"the prompt {words[:60]!r} and the answer {answer[:80]!r}"


def faulty_row(call: Callable[[Sequence[int]], Any], rows: int, seconds: float) -> int | None:
    """Return the first row at which a function raises or hangs, called with one row after the other.

    Args:
        seconds: time limit of one call, and half of that of all. Returns: None if no row alone fails in this time.
    """
    end = time.monotonic() + 2 * seconds
    for place in range(rows):
        left = min(seconds, end - time.monotonic())
        if left <= 0:
            return None
        try:
            with contextlib.redirect_stdout(None):
                call_within(left, lambda place=place: call([place]))  # type: ignore[misc]
        except (KeyboardInterrupt, Terminated):
            raise
        except Expired:
            return place if left == seconds else None
        except BaseException:  # the run ends with the error of the call of all rows
            return place
    return None
