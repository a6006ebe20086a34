"""What a person sees of a pipeline: a live line on a terminal, plain lines elsewhere, a table at the end."""

import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from alignment.errors import JsonError
from alignment.meter import PROGRESS_LINE, duration
from alignment.run.processes import tail
from alignment.strict_json import OURS, parse

SHOWN = ("loss", "eval_loss", "accuracy", "eval_accuracy", "score", "reward", "kl", "learning_rate")
PIPELINE_SECONDS = 60.0


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
            self.console.print(
                f"{self.stage}: started, log in {self.log}", soft_wrap=True, highlight=False, markup=False
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the line; the caller prints the stage's result."""
        self.stack.close()

    def tick(self) -> None:
        """Redraw the line; elsewhere write one now and then."""
        if self.live is None:
            if time.monotonic() - self.said_at >= PIPELINE_SECONDS:
                self._say()
            return
        state = last_metrics(self.folder / "metrics.jsonl") if self.folder else ""
        state = self._last_progress_line() or state
        if not state and self.log.is_file():
            state = " ".join(tail(self.log, 1))
        clock = duration(time.monotonic() - self.begun)
        line = Text.assemble((f"{self.stage:<12}", "bold cyan"), f" {clock:>8}  ", (state, "dim"), no_wrap=True)
        line.truncate(self.console.width, overflow="ellipsis")
        self.live.update(line, refresh=True)

    def _say(self) -> None:
        self.said_at, state = time.monotonic(), self._last_progress_line()
        if state and state != self.said:
            named = state.startswith((f"{self.stage} ", f"{self.stage}: "))
            line = state if named else f"{self.stage}: {state}"
            self.console.print(line, soft_wrap=True, highlight=False, markup=False)
        self.said = state

    def _last_progress_line(self) -> str:
        """The last line of the stage's own progress bar."""
        lines = tail(self.log, 20) if self.log.is_file() else []
        return next((line for line in reversed(lines) if PROGRESS_LINE.match(line)), "")


def last_metrics(file: Path) -> str:
    """Return the newest log of a run in a few words."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - 8_192))
            row = parse(stream.read().rstrip().rsplit(b"\n", 1)[-1], OURS)
    except (OSError, JsonError):
        return ""
    if not isinstance(row, dict):
        return ""
    words = [f"step {row['step']}"] if "step" in row else []
    shown = [key for key in row if key.rpartition("/")[2] in SHOWN][:5]
    return "  ".join(words + [f"{key} {row[key]:.4g}" for key in shown if isinstance(row[key], int | float)])


def summary(rows: list[tuple[str, float, str]]) -> Table:
    """Return a table of (stage, seconds, result)."""
    table = Table(title="Stages")
    table.add_column("stage", style="bold")
    table.add_column("time", justify="right")
    table.add_column("status")
    for stage, seconds, status in rows:
        table.add_row(escape(stage), duration(seconds) if seconds else "–", escape(status))
    return table
