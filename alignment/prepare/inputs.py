"""Refusal of steps that read what no row has, before anything is written."""

from collections.abc import Collection

from alignment.config.faults import did_you_mean
from alignment.data.prepare.step import Rows, StepError
from alignment.errors import printable
from alignment.meter import say
from alignment.prepare.applying import Numbered


def require_inputs(one: Numbered, rows: Rows, noted: Collection[str]) -> None:
    """Require that some row has the column that a step reads, and a text of the roles that its `on` names.

    A step without `on` that finds no text is told.

    Args:
        noted: notes of the steps before.

    Raises: StepError.
    """
    step, label = one.step, f"step {one.number}, {one.entry.label}"
    if step.roles and len(rows) and not any(text.role in step.roles for row in rows for text in row.texts):
        found = sorted({text.role for row in rows for text in row.texts})
        lacking = (
            f"{label}: reads {', '.join(step.roles)}, and no row has such a text; the rows have {', '.join(found)}"
        )
        if "on" in one.entry.model_fields_set:
            raise StepError(f"{lacking}. Correct on, or take the step out")
        say(f"{lacking}, so the step finds nothing")
    if step.by and step.by not in noted and len(rows) and all(row.value.get(step.by) is None for row in rows):
        known = sorted({*noted, *(name for row in rows for name in row.value)})
        near = did_you_mean(step.by, known)
        raise StepError(printable(f"{label}: no row has {step.by}{near}; found {', '.join(known)}"))


def require_new_columns(names: Collection[str], rows: Rows) -> None:
    """Require that columns to add are not there.

    Raises: StepError.
    """
    for row in rows if names else ():
        for name in names:
            if name in row.value:
                raise StepError(f"columns_added: {name} is a column of the rows; take it out ({printable(row.origin)})")
