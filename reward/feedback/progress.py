"""How far a long loop is: a bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts `unit`s of `what` towards `total` on standard error."""

    def __init__(
        self, what: str, unit: str, total: int, done: int = 0, *, note: Callable[[], str] = lambda: ""
    ) -> None:
        self.what, self.unit, self.total, self.done = what, unit, total, done
        self.note = note  # said behind the rate: money spent and left, say
        self._start, self._before = time.monotonic(), done
        self._said = self._start
        self._bar: RichProgress | None = None
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            rate = TextColumn("{task.fields[rate]}")
            self._bar = RichProgress(*columns, rate, console=Console(stderr=True))
            self._task = self._bar.add_task(what, total=total, completed=done, rate="")

    def advance(self, count: int) -> None:
        """Count `count` more."""
        self.done += count
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, rate=self._rate())
        elif time.monotonic() - self._said >= SECONDS_BETWEEN_LINES:
            self._say()

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self.total:
            self._say()

    def _rate(self) -> str:
        seconds = time.monotonic() - self._start
        note = self.note()
        return f"{(self.done - self._before) / max(seconds, 1e-9):.1f} {self.unit}/s" + (f", {note}" if note else "")

    def _say(self) -> None:
        self._said = time.monotonic()
        sys.stderr.write(f"{self.what} {self.done}/{self.total} {self.unit}, {self._rate()}\n")
        sys.stderr.flush()
