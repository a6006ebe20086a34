"""What a chat shows: answers on standard output, everything else on standard error."""

import sys
from collections.abc import Iterator, Sequence
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from alignment.chat.answering import Answer

NARROWEST = 30  # columns of a terminal for an answer beside others
FRAMES = 12  # a second


def visible(text: str) -> str:
    """Return a model's text without the characters that move a terminal's cursor or colour it."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


class Screen:
    """Shows one answer as it grows, or several side by side."""

    def __init__(self, output: TextIO | None = None, errors: TextIO | None = None) -> None:
        """Write to these streams; None: to the process's own."""
        self.output, self.errors = output or sys.stdout, errors or sys.stderr
        self.console = Console(file=self.output, highlight=False, markup=False, emoji=False)

    def note(self, line: str) -> None:
        """Write a line about the session."""
        self.errors.write(f"{visible(line)}\n")
        self.errors.flush()

    def show(self, answers: Sequence[Answer], steps: Iterator[None]) -> None:
        """Show answers while `steps` writes them."""
        if len(answers) == 1:
            self._one(answers[0], steps)
        elif self.console.is_terminal:
            self._beside(answers, steps)
        else:
            self._below(answers, steps)

    def _one(self, answer: Answer, steps: Iterator[None]) -> None:
        written = ""
        try:
            for _ in steps:
                if answer.text.startswith(written):
                    self.output.write(visible(answer.text[len(written) :]))
                    self.output.flush()
                    written = answer.text
        finally:
            if not answer.text.startswith(written):  # the tokenizer wrote an earlier part differently
                self.output.write("\n")
                written = ""
            self.output.write(f"{visible(answer.text[len(written) :])}\n")
            self.output.flush()
        if answer.fault:
            self.note(f"({answer.fault})")

    def _below(self, answers: Sequence[Answer], steps: Iterator[None]) -> None:
        for _ in steps:
            pass
        for number, answer in enumerate(answers, 1):
            self.output.write(f"[{number}] {answer.policy.path}\n{visible(answer.text).strip()}\n")
        self.output.flush()
        for number, answer in enumerate(answers, 1):
            if answer.fault:
                self.note(f"({number}: {answer.fault})")

    def _beside(self, answers: Sequence[Answer], steps: Iterator[None]) -> None:
        with Live(
            console=self.console, transient=True, refresh_per_second=FRAMES, vertical_overflow="ellipsis"
        ) as live:
            live.get_renderable = lambda: self._table(answers)  # type: ignore[method-assign]
            for _ in steps:
                pass
        self.console.print(self._table(answers, whole=True))

    def _table(self, answers: Sequence[Answer], *, whole: bool = False) -> Table:
        wide = self.console.width // len(answers) >= NARROWEST
        panels = [
            Panel(
                Text(visible(answer.text).strip()),
                title=Text(f"{number} {answer.policy.path}"),
                subtitle=Text(answer.fault if whole or answer.ended else "…"),
            )
            for number, answer in enumerate(answers, 1)
        ]
        table = Table.grid(expand=True)
        for _ in panels if wide else panels[:1]:
            table.add_column(ratio=1)
        for row in [panels] if wide else [[panel] for panel in panels]:
            table.add_row(*row)
        return table
