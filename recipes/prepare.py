"""Prepare data: clean, filter, de-duplicate, mix and split rows by a list of steps.

alignment prepare --config prepare.yaml [--key value …]
Writes the rows of each split, dropped.jsonl with every dropped and changed row, and the page prepare.html.
"""

import sys
from types import ModuleType

from alignment.config import load_recipe
from alignment.config.schema.prepare import PrepareRecipe
from alignment.prepare.engine import build_steps, require, resumable, run_steps
from alignment.prepare.page import write_page
from alignment.prepare.preview import preview as preview  # reads the rows that `alignment preview` shows
from alignment.prepare.reading import read
from alignment.prepare.store import FOLDER, Store
from alignment.prepare.writing import write_account, write_records, write_rows
from alignment.run.directory import RunDirectory
from alignment.run.script import script


def main(argv: list[str] | None = None) -> None:
    """Run the stage."""
    recipe = load_recipe(PrepareRecipe, sys.argv[1:] if argv is None else argv)
    scores = scores_of(recipe)
    builders = {} if scores is None else {"score": scores.score_builder(recipe)}
    steps = build_steps(recipe, builders)  # before data are read: a missing package or file ends the stage
    data = None if resumable(recipe) else read(recipe)  # unreadable data is refused before anything is written
    require(recipe, steps, data)
    run = RunDirectory.open(recipe, expendable=lambda _: [FOLDER])
    prepared = run_steps(recipe, steps, data)
    files, features = write_rows(recipe, prepared.rows)
    write_records(run.path, prepared.records)
    write_account(run.path, prepared)
    write_page(recipe, prepared)
    run.record(data=prepared.about["files"], formats=prepared.about["formats"], files=files, features=features)
    done = [counts.row() for counts in prepared.counts]
    spent = {} if scores is None else scores.judged(recipe)
    run.finish(rows_read=len(prepared.read), rows_written=len(prepared.rows), steps=done, **spent)
    Store(run.path).remove()


def scores_of(recipe: PrepareRecipe) -> ModuleType | None:
    """Return the module that scores rows; None for a recipe without such a step, which needs no torch."""
    if not any(step.kind == "score" for step in recipe.steps):
        return None
    from reward.scorers import prepared

    return prepared


if __name__ == "__main__":
    script(main)
