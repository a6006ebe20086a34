"""Progress of long work: a bar on a terminal, a line from time to time in a log."""

import functools
import os
import re
import sys
import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from alignment.errors import printable

FIRST_SECONDS, LAST_SECONDS = 10.0, 60.0  # between lines: at first, and after twenty minutes
PROGRESS_LINE = re.compile(r"^\S.*? \d+/\d+ [a-z]+( \(|$)")  # how the lines of a ProgressBar begin


def say(what: str) -> None:
    """Write one line to standard error, in the main process only."""
    if os.environ.get("RANK", "0") == "0":
        sys.stderr.write(f"{what}\n")
        sys.stderr.flush()


@functools.cache
def say_once(what: str) -> None:
    """Write a line as `say` does, unless this process has written the same line before."""
    say(what)


def say_left_out(skipped: Sequence[str], count: int, unit: str) -> None:
    """Write how many of `count` rows are left out and why the first one is; write nothing if `skipped` is empty."""
    if skipped:
        first = printable(" ".join(skipped[0].split()))
        say_once(f"left out {len(skipped):,} of {count:,} {unit} (on_bad_row: skip); the first is {first}")


class ProgressBar:
    """Shows on standard error how many `unit`s of `what` are done, in the main process only."""

    def __init__(
        self,
        what: str,
        unit: str,
        total: int,
        done: int = 0,
        *,
        rate: Callable[[], str] | None = None,
        note: Callable[[], str] = lambda: "",
    ) -> None:
        """Begin at `done`.

        Args:
            rate: returns the speed as text; None: units per second. note: returns text to show behind it, such as a
                loss or the money spent.
        """
        self.what, self.unit, self.total, self.done = what, unit, total, done
        self.rate, self.note = rate or self._units_a_second, note
        self._before = done
        self._start = self._said = time.monotonic()
        self._quiet = os.environ.get("RANK", "0") != "0"
        self._bar: Bar | None = None
        if sys.stderr.isatty() and not self._quiet:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Bar(*columns, TextColumn("{task.fields[words]}"), console=Console(stderr=True))
            self._task = self._bar.add_task(what, total=total, completed=done, words="")

    def advance(self, count: int) -> None:
        """Add `count` to the units that are done."""
        self.done += count
        self.show()

    def show(self, *, now: bool = False) -> None:
        """Redraw the bar. Without a terminal, write a line if one is due or if `now` is set."""
        since, running = time.monotonic() - self._said, time.monotonic() - self._start
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, words=", ".join(self._words()))
        elif now or since >= min(LAST_SECONDS, max(FIRST_SECONDS, running / 20)):
            self._say()

    def __enter__(self) -> "ProgressBar":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self.total:
            self._say(ended=True)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return max(time.monotonic() - self._start, 1e-9)

    def _units_a_second(self) -> str:
        return f"{(self.done - self._before) / self.seconds:.1f} {self.unit}/s"

    def _words(self) -> list[str]:
        return [words for words in (self.rate(), self.note()) if words]

    def _say(self, *, ended: bool = False) -> None:
        if self._quiet:
            return
        self._said = time.monotonic()
        here = self.done - self._before  # an earlier start did the others
        left = self.seconds / here * (self.total - self.done) if here else 0.0
        clock = [f"took {duration(self.seconds)}"] if ended else [f"{duration(left)} left"] if here else []
        share = f" ({self.done / self.total:.0%})" if self.total else ""
        words = [f"{self.what} {self.done}/{self.total} {self.unit}{share}", *clock, *self._words()]
        sys.stderr.write(", ".join(words) + "\n")
        sys.stderr.flush()


def duration(seconds: float) -> str:
    """Return `8.2 s`, `1:05`, `2:01:30`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
