"""What a check found."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "warning", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    about: str  # one or two words
    found: str
    remedy: str = ""  # what to do; "" where nothing has to be done


def ok(about: str, found: str) -> Finding:
    """All is well."""
    return Finding("ok", about, found)


def note(about: str, found: str, remedy: str = "") -> Finding:
    """Worth knowing."""
    return Finding("note", about, found, remedy)


def warning(about: str, found: str, remedy: str) -> Finding:
    """It will run, and probably not as meant."""
    return Finding("warning", about, found, remedy)


def fault(about: str, found: str, remedy: str) -> Finding:
    """It cannot run."""
    return Finding("fault", about, found, remedy)
