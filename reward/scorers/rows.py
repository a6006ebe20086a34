"""The rows that a scorer reads one by one: their names in messages, and the row at which a scorer fails."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alignment.data.rows import Prompt
from alignment.errors import ScorerError
from alignment.meter import say_once
from alignment.run.signals import Terminated
from alignment.train.policy_gradient.experience import Columns
from alignment.train.policy_gradient.scoring import Answered
from reward.time_limit import Expired, call_within

Scores = list[float | None]  # None: the scorer does not apply to the row


class RowScorer:
    """Scores one answer after the other by a check of this project, each within a time limit.

    Args:
        check: returns the score of an answer, given the columns of its row.
        reads: the columns that it needs; it does not apply to a row in which one is absent or null.
        require: raises ScorerError if the columns of a row cannot be used.
    """

    def __init__(
        self,
        check: Callable[[str, Columns], float],
        *,
        kind: str,
        timeout_seconds: float,
        reads: Sequence[str] = (),
        require: Callable[[Columns], object] = lambda row: None,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self.check, self.require, self.kind = check, require, kind
        self.reads, self.timeout_seconds = reads, timeout_seconds
        self.identity = dict(identity or {})

    def score_rows(self, given: Answered) -> Scores:
        """Check each answer.

        Raises: ScorerError at the first answer that cannot be checked within the time limit.
        """
        rows = given.columns or [{} for _ in given.answers]
        return [self._score(*row) for row in zip(given.prompts, given.answers, rows, strict=True)]

    def _score(self, prompt: Prompt, answer: str, row: Columns) -> float | None:
        if not self.applies(row):
            return None
        try:
            return call_within(self.timeout_seconds, lambda: self.check(answer, row))
        except Expired:
            raise ScorerError(
                f"scorer {self.kind} did not return within timeout_seconds: {self.timeout_seconds:g}; give it more "
                f"time. The row: {row_name(prompt, answer)}."
            ) from None

    def applies(self, row: Columns) -> bool:
        """Return whether a row has every column that the scorer reads."""
        return all(row.get(name) is not None for name in self.reads)

    def require_columns(self, columns: Sequence[Columns], sources: Sequence[str]) -> None:
        """Check the columns of every row, and report the number of rows to which the scorer does not apply.

        Args:
            sources: "file:line" of each row. Raises: ScorerError at the first row that cannot be used.
        """
        rows = [(row, source) for row, source in zip(columns, sources, strict=False) if self.applies(row)]
        for row, source in rows:
            try:
                self.require(row)
            except ScorerError as fault:
                raise ScorerError(f"{source}: {fault}") from None
        if len(rows) < len(columns):
            wanted = ", ".join(self.reads)
            say_once(
                f"scorer {self.kind}: applies to {len(rows):,} of {len(columns):,} rows; the others have no {wanted}"
            )


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
