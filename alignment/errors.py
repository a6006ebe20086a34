"""The errors a user can cause. Each says what was found, which rule it breaks, and what to do.

The command line prints the message alone, without a traceback, and ends with the error's `exit_code`.
"""

from alignment.secrecy import hidden

LONGEST_FAULT = 1_000  # characters of one line of a recipe's faults


def printable(text: str) -> str:
    """Return a text as one line that a terminal shows as it is: control characters and line ends are escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def first_line(error: object, longest: int = 300) -> str:
    """Return what a library's error says, or its type, as one short line for a message of ours."""
    words = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    words = printable(words)
    return words if len(words) <= longest else f"{words[: longest - 1]}…"


class AlignmentError(Exception):
    """Something the user can mend; the message stands alone."""

    exit_code = 1

    def __str__(self) -> str:
        """Return the message without keys, whatever it quotes."""
        return hidden(super().__str__())


class Done(SystemExit):
    """The command has printed what was asked for, `--help` say, and ends with 0 without running anything.

    `sys.exit(0)` in other code, a recipe's own function say, must not look like a run that finished.
    """

    def __init__(self) -> None:
        super().__init__(0)


class RecipeError(AlignmentError):
    """A recipe or an override breaks a rule; carries every fault found, one per line."""

    exit_code = 2

    def __init__(self, faults: list[str]) -> None:
        """Join the faults, each one printable line of bounded length, without keys."""
        lines = [printable(line) for fault in faults for line in hidden(fault).split("\n") if line.strip()]
        self.faults = [line if len(line) <= LONGEST_FAULT else f"{line[: LONGEST_FAULT - 1]}…" for line in lines]
        super().__init__("\n".join(self.faults))


class DataError(AlignmentError):
    """A data file or a row in it cannot be used."""


class JsonError(AlignmentError, ValueError):
    """A text is no JSON, or a value breaks a limit on what may be read; the message names key or character."""


class NotJson(JsonError):
    """A text is no JSON at all."""

    position: int = 0  # of the character at which it stops being so, from 0


class ModelError(AlignmentError):
    """A model, adapter or tokenizer folder cannot be used."""


class LineageError(AlignmentError):
    """Two artifacts that must share a base, tokenizer, template or special tokens do not."""


class JudgeError(AlignmentError):
    """A judge cannot be asked, or too many of its answers failed."""


class BudgetError(JudgeError):
    """The recipe's budget does not allow another call."""


class GateError(AlignmentError):
    """Labels miss the limits that a recipe sets; `alignment audit --gate` ends with a code of its own."""

    exit_code = 3


class ScorerError(AlignmentError):
    """A source of PPO's scores cannot be asked, or what it says is no score."""


class TrainingError(AlignmentError):
    """Training cannot go on, a loss that is not a number, say."""


class ShapeError(AlignmentError, ValueError):
    """Tensors whose shapes must agree do not."""
