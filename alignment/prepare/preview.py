"""The rows that the stage reads, and what its steps that look at one row at a time make of them."""

from alignment.config.schema.prepare import PrepareRecipe
from alignment.data.prepare.step import Row as PreparedRow
from alignment.prepare.applying import apply_all
from alignment.prepare.engine import build_steps
from alignment.prepare.reading import read
from alignment.prepare.store import of_line, to_line
from alignment.preview.rows import Lengths, Part, Row, Stage


def preview(recipe: PrepareRecipe, written: None) -> Stage:
    """Read the rows.

    Raises: DataError, StepError as the stage does.
    """
    steps = [one for one in build_steps(recipe) if not one.step.LOOKS]
    found = read(recipe)

    def build(place: int) -> Row:
        row = found.rows[place]
        made = apply_all(steps, [(place, to_line(row))], texts=False)
        parts = _parts(row)
        told = "; ".join(f"{one['step']}: {one['action']}, {one['reason']}" for one in made.records)
        if told:
            after = [part for line in made.lines for part in _parts(of_line(line))]
            parts += [Part("steps", told), *(Part(f"{part.name} after", part.text) for part in after)]
        return Row(row.origin, {}, parts)

    return Stage(
        "prepare",
        [row.origin for row in found.rows],
        build,
        lambda: Lengths([], []),
        [f"{one['origin']}: {one['reason']}" for one in found.skipped],
        found.files,
        found.formats,
        {},
    )


def _parts(row: PreparedRow) -> list[Part]:
    return [Part(text.role, text.text) for text in row.texts if not text.repeats]
