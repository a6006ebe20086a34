"""Errors that users can cause. A message states what was found, which rule it breaks, and what to do.

The command line prints only the message, without a traceback, and ends with the error's `exit_code`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from alignment.secrecy import hidden

LONGEST_FAULT = 1_000  # characters of one line of a recipe's faults


def printable(text: str) -> str:
    """Return a text as one line that a terminal shows as it is: control characters and line ends are escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def first_line(error: object, longest: int = 300) -> str:
    """Return the message of a library's error, or its type, as one short line."""
    words = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    words = printable(words)
    return words if len(words) <= longest else f"{words[: longest - 1]}…"


class AlignmentError(Exception):
    """An error that the user can correct; the message needs no context."""

    exit_code = 1

    def __str__(self) -> str:
        """Return the message without API keys."""
        return hidden(super().__str__())


class Done(SystemExit):
    """The command has printed its output, such as `--help`, and ends with 0 without a run.

    `sys.exit(0)` in other code, such as a recipe's own function, must not look like a finished run.
    """

    def __init__(self) -> None:
        super().__init__(0)


class RecipeError(AlignmentError):
    """A recipe or an override breaks a rule; carries every fault found, one per line."""

    exit_code = 2

    def __init__(self, faults: list[str]) -> None:
        """Join the faults, each one printable line of limited length, without API keys."""
        lines = [printable(line) for fault in faults for line in hidden(fault).split("\n") if line.strip()]
        self.faults = [line if len(line) <= LONGEST_FAULT else f"{line[: LONGEST_FAULT - 1]}…" for line in lines]
        super().__init__("\n".join(self.faults))


class DataError(AlignmentError):
    """A data file or a row in it cannot be used."""


class JsonError(AlignmentError, ValueError):
    """A text is not JSON, or a value exceeds a limit; the message names the key or the character."""


class NotJson(JsonError):
    """A text is not JSON."""

    position: int = 0  # of the first invalid character, from 0


class ModelError(AlignmentError):
    """A model, adapter or tokenizer folder cannot be used."""


class LineageError(AlignmentError):
    """Two artifacts that must share a base, tokenizer, template or special tokens do not."""


class JudgeError(AlignmentError):
    """A judge cannot be called, or too many of its replies failed."""


class BudgetError(JudgeError):
    """The recipe's budget does not allow another call."""


class GateError(AlignmentError):
    """Labels miss the limits of a recipe; `alignment audit --gate` ends with its own exit code."""

    exit_code = 3


class ScorerError(AlignmentError):
    """A scorer cannot be called, or its result is not a score."""


class TrainingError(AlignmentError):
    """Training cannot continue, for example because the loss is not a number."""


class ShapeError(AlignmentError, ValueError):
    """Tensors whose shapes must agree do not."""


@contextmanager
def named_inputs(*kinds: type[AlignmentError]) -> Iterator[None]:
    """End with 2, as for a recipe's faults, where an input that a recipe or command line names cannot be used.

    Args:
        kinds: errors of such inputs; none: those of models and adapters.
    """
    caught = kinds or (ModelError, LineageError)
    try:
        yield
    except caught as error:
        error.exit_code = RecipeError.exit_code
        raise
