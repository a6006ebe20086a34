"""Findings of a check."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "warning", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding."""

    level: Level
    about: str  # one or two words
    found: str
    remedy: str = ""  # what to do; "" if there is nothing to do


def ok(about: str, found: str) -> Finding:
    """Return a finding without a problem."""
    return Finding("ok", about, found)


def note(about: str, found: str, remedy: str = "") -> Finding:
    """Return a finding that is only information."""
    return Finding("note", about, found, remedy)


def warning(about: str, found: str, remedy: str) -> Finding:
    """Return a finding about a run that starts but may not do what is meant."""
    return Finding("warning", about, found, remedy)


def fault(about: str, found: str, remedy: str) -> Finding:
    """Return a finding about a run that cannot start."""
    return Finding("fault", about, found, remedy)
