"""What a person sees of long work: a bar or a live line on a terminal, a plain line now and then elsewhere."""

import json
import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from alignment.run.processes import tail

SHOWN = ("loss", "eval_loss", "accuracy", "eval_accuracy", "score", "reward", "kl", "learning_rate")
FIRST_SECONDS, LAST_SECONDS = 10.0, 60.0  # between lines: at first, and after twenty minutes
METERED = re.compile(r"^\S.*? \d+/\d+ [a-z]+( \(|$)")  # how a meter's lines begin
PIPELINE_SECONDS = 60.0


def say(what: str) -> None:
    """One line for whoever watches, from the main process alone."""
    if os.environ.get("RANK", "0") == "0":
        sys.stderr.write(f"{what}\n")
        sys.stderr.flush()


class Meter:
    """Counts `unit`s of `what` towards `total` on standard error, in the main process alone."""

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
            rate: how fast it goes, in words; None: units a second. note: what stands behind: money spent, a loss.
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
        """Count `count` more."""
        self.done += count
        self.show()

    def show(self, *, now: bool = False) -> None:
        """Redraw the bar; elsewhere write a line, where it is time for one or it is wanted `now`."""
        since, running = time.monotonic() - self._said, time.monotonic() - self._start
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, words=", ".join(self._words()))
        elif now or since >= min(LAST_SECONDS, max(FIRST_SECONDS, running / 20)):
            self._say()

    def __enter__(self) -> "Meter":
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
        """Since this meter was begun."""
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


class Progress:
    """The line of the stage that runs."""

    def __init__(self, console: Console, stage: str, folder: Path | None, log: Path) -> None:
        """Watch a run folder's metrics.jsonl, else the log's last line."""
        self.console, self.stage, self.folder, self.log = console, stage, folder, log
        self.begun = time.monotonic()
        self.stack = ExitStack()
        self.live: Live | None = None
        self.said, self.said_at = "", self.begun

    def __enter__(self) -> "Progress":
        """Start the line."""
        if self.console.is_terminal:
            self.live = self.stack.enter_context(Live(console=self.console, auto_refresh=False, transient=True))
            self.tick()
        else:
            self.console.print(f"{self.stage}: started, log in {self.log}", soft_wrap=True, highlight=False)
        return self

    def __exit__(self, *_: object) -> None:
        """Take the line away; what came of the stage is printed by the caller."""
        self.stack.close()

    def tick(self) -> None:
        """Redraw the line; elsewhere write one now and then."""
        if self.live is None:
            if time.monotonic() - self.said_at >= PIPELINE_SECONDS:
                self._say()
            return
        state = last_metrics(self.folder / "metrics.jsonl") if self.folder else ""
        state = self._metered() or state
        if not state and self.log.is_file():
            state = " ".join(tail(self.log, 1))
        clock = duration(time.monotonic() - self.begun)
        line = Text.assemble((f"{self.stage:<12}", "bold cyan"), f" {clock:>8}  ", (state, "dim"), no_wrap=True)
        line.truncate(self.console.width, overflow="ellipsis")
        self.live.update(line, refresh=True)

    def _say(self) -> None:
        self.said_at, state = time.monotonic(), self._metered()
        if state and state != self.said:
            named = state.startswith((f"{self.stage} ", f"{self.stage}: "))
            line = state if named else f"{self.stage}: {state}"
            self.console.print(line, soft_wrap=True, highlight=False, markup=False)
        self.said = state

    def _metered(self) -> str:
        """The last line of the stage's own meter."""
        lines = tail(self.log, 20) if self.log.is_file() else []
        return next((line for line in reversed(lines) if METERED.match(line)), "")


def last_metrics(file: Path) -> str:
    """Return the newest log of a run in a few words."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - 8_192))
            row: dict[str, Any] = json.loads(stream.read().rstrip().rsplit(b"\n", 1)[-1])
    except (OSError, ValueError):
        return ""
    words = [f"step {row['step']}"] if "step" in row else []
    shown = [key for key in row if key.rpartition("/")[2] in SHOWN][:5]
    return "  ".join(words + [f"{key} {row[key]:.4g}" for key in shown if isinstance(row[key], int | float)])


def duration(seconds: float) -> str:
    """Return `8.2 s`, `1:05`, `2:01:30`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def summary(rows: list[tuple[str, float, str]]) -> Table:
    """Return a table of (stage, seconds, what came of it)."""
    table = Table(title="Stages")
    table.add_column("stage", style="bold")
    table.add_column("time", justify="right")
    table.add_column("status")
    for stage, seconds, status in rows:
        table.add_row(escape(stage), duration(seconds) if seconds else "–", escape(status))
    return table
