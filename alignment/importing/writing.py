"""The text of an imported recipe, and the lines that list the fate of each key."""

from typing import Any

import yaml

from alignment.config.faults import shown
from alignment.importing.conversion import Conversion, Outcome

WIDTH = 110


def recipe_text(conversion: Conversion) -> str:
    """Return the recipe as YAML, with comments at defaults and at keys that the user completes."""
    head = f"# Imported from {conversion.path} ({conversion.peer.title}) by `alignment import`."
    lines = [head]
    for key, value in conversion.recipe.items():
        note = conversion.unsettled.get(key) or conversion.notes.get(key)
        lines += _entry(key, value, f"set by you: {note}" if key in conversion.unsettled else note)
    return "\n".join(lines) + "\n"


def _entry(key: str, value: Any, note: str | None) -> list[str]:
    text = yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, width=10**6).rstrip("\n").split("\n")
    if not note:
        return text
    if len(text) == 1 and len(text[0]) + len(note) + 4 <= WIDTH:
        return [f"{text[0]}  # {note}"]
    return [f"# {note}", *text]


def outcome_lines(outcomes: list[Outcome]) -> list[str]:
    """Return a line for each key of the peer: its fate, the key, and what became of it."""
    return [f"{outcome.fate:<10}  {_theirs(outcome)}{_result(outcome)}" for outcome in outcomes]


def _theirs(outcome: Outcome) -> str:
    return f"{outcome.key}: {shown(outcome.value)}"


def _result(outcome: Outcome) -> str:
    ours = ", ".join(f"{key}: {shown(value)}" for key, value in outcome.ours)
    is_same = outcome.ours == ((outcome.key, outcome.value),) and outcome.fate != "set by you"
    reason = f" ({outcome.reason})" if outcome.reason and ours and not is_same else outcome.reason
    reason = "" if is_same else reason
    return f" -> {ours}{reason}" if ours else f" -> {reason}" if reason else ""
