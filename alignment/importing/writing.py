"""The text of an imported recipe, and the lines that list the fate of each key."""

from typing import Any

import yaml

from alignment.config.faults import shown
from alignment.importing.conversion import Conversion, Outcome

WIDTH = 110


def recipe_text(conversion: Conversion) -> str:
    """Return the recipe as YAML, with comments at defaults and at keys that the user completes."""
    head = f"# Imported from {conversion.path} ({conversion.peer.title}) by `alignment import`."
    lines = [_one(line) for line in (head, *(f"# {key}: {told}" for key, told in conversion.differences.items()))]
    for key, value in conversion.recipe.items():
        note = conversion.unsettled.get(key) or conversion.notes.get(key)
        lines += _entry(key, value, f"set by you: {note}" if key in conversion.unsettled else note)
    return "\n".join(lines) + "\n"


def _entry(key: str, value: Any, note: str | None) -> list[str]:
    text = yaml.safe_dump({key: value}, sort_keys=False, allow_unicode=True, width=10**6).rstrip("\n").split("\n")
    if not note:
        return text
    note = _one(note)
    if len(text) == 1 and len(text[0]) + len(note) + 4 <= WIDTH:
        return [f"{text[0]}  # {note}"]
    return [f"# {note}", *text]


def _one(comment: str) -> str:
    """Return a comment on one line: a name of the file within it may have several, which would be keys."""
    return " ".join(comment.splitlines())


def outcome_lines(conversion: Conversion) -> list[str]:
    """Return a line for each key of the peer, its fate and what became of it, and for each key that was added."""
    lines = [_line(outcome.fate, f"{outcome.key}: {shown(outcome.value)}", _result(conversion, outcome))
             for outcome in conversion.outcomes]  # fmt: skip
    known = {key for outcome in conversion.outcomes for key, _ in outcome.ours}
    for key, value in conversion.recipe.items():
        if key not in known and key != "stage":
            lines.append(_line("added", f"{key}: {shown(value)}", f"({conversion.notes.get(key, 'needed here')})"))
    return lines


def _line(fate: str, key: str, result: str) -> str:
    return f"{fate:<10}  {key} {result}".rstrip()


def _result(conversion: Conversion, outcome: Outcome) -> str:
    if not outcome.ours:
        return f"-> {outcome.reason}" if outcome.reason else ""
    ours = ", ".join(f"{key}: {shown(conversion.recipe.get(key, value))}" for key, value in outcome.ours)
    is_same = outcome.ours == ((outcome.key, outcome.value),) and outcome.fate != "set by you"
    notes = [conversion.notes[key] for key, _ in outcome.ours if key in conversion.notes and outcome.fate != "default"]
    told = "; ".join(notes or ([outcome.reason] if outcome.reason and not is_same else []))
    return f"-> {ours} ({told})" if told else f"-> {ours}"
