"""The number of rows of a stage: counted if the data are on this machine, else the maximum that the recipes allow."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignment.config.schema import PretrainRecipe, Recipe
from alignment.config.schema.scorers import columns_of
from alignment.data import load_rows
from alignment.data.load import load_prompts
from alignment.errors import AlignmentError
from alignment.planner.sequences import sequences_of

SLICE = re.compile(r"[\w.+-]+\[(?P<begin>\d*):(?P<end>\d+)\]")  # train[:1000]; a percentage gives no number


def rows_of(recipe: Recipe, before: Mapping[str, Recipe]) -> int | None:
    """Return the rows of a stage: demonstrations, prompts, pairs or the sequences of documents; None: unknown.

    Args:
        before: recipes of earlier stages, by output_dir.
    """
    found = _read(recipe, before)
    held_out = getattr(recipe, "test_split_size", None) or 0.0
    return None if found is None else max(1, round(found * (1.0 - held_out)))


def pairs_of(recipe: Any) -> int:
    """Return the pairs of answers that labelling compares for one prompt."""
    every: int = recipe.num_generations * (recipe.num_generations - 1) // 2
    return min(recipe.pairs_per_prompt or every, every)


def outside_answers(recipe: Any) -> int:
    """Return the answers of one policy to `outside_questions`, in answers of the recipe's `max_new_tokens`.

    Files that are not on this machine count as none.
    """
    count = 0.0
    for each in getattr(recipe, "outside_questions", ()):
        columns = columns_of(each.scorers)
        try:
            rows = load_prompts(
                each.datasets, on_bad_row="skip", seed=recipe.seed, max_samples=each.max_samples, columns=columns
            ).rows
        except AlignmentError:
            continue
        count += len(rows) * (each.max_new_tokens or recipe.max_new_tokens) / recipe.max_new_tokens
    return math.ceil(count)


def _read(recipe: Recipe, before: Mapping[str, Recipe]) -> int | None:
    entries = getattr(recipe, "datasets", [])
    if getattr(recipe, "streaming", False):
        return None  # max_steps bounds it
    if entries and all(Path(entry.path).exists() for entry in entries):
        return _counted(recipe, before)
    limit = getattr(recipe, "max_samples", None)
    parts = [_most(entry, before, recipe) for entry in entries]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or not parts:
        return limit
    return min(sum(known), limit) if limit is not None else sum(known)


def _counted(recipe: Recipe, before: Mapping[str, Recipe]) -> int | None:
    try:
        rows = load_rows(recipe, on_bad_row="skip").rows
    except AlignmentError:
        return None
    if isinstance(recipe, PretrainRecipe):
        return sequences_of(recipe, rows, before)
    if recipe.STAGE.rows == "unpaired":
        return sum(label is not None for row in rows for label in row.desirable)
    return sum(len(row.pairs) for row in rows) if _trains_pairs(recipe) else len(rows)


def _trains_pairs(recipe: Recipe) -> bool:
    """Whether a row that is trained is one pair of a ranking, not all its answers."""
    return recipe.STAGE.rows == "rankings" and recipe.STAGE.sequences == 2


def _made_of_prompt(labels: Any, reader: Recipe) -> int:
    """Return how many rows a stage trains of the labels of one prompt."""
    if reader.STAGE.rows == "unpaired":
        return int(labels.num_generations)
    return pairs_of(labels) if _trains_pairs(reader) else 1


def _most(entry: Any, before: Mapping[str, Recipe], reader: Recipe) -> int | None:
    """Return the maximum rows of one data set: of its slice, or of the stage that writes it."""
    for folder, other in before.items():
        if Path(folder) not in (Path(entry.path), *Path(entry.path).parents):
            continue
        if other.STAGE.makes == "data":
            return other.most_rows(_read(other, before))
        if other.STAGE.makes == "labels":
            prompts = _read(other, before)
            return None if prompts is None else prompts * _made_of_prompt(other, reader)
    sliced = SLICE.fullmatch(entry.split)
    return int(sliced["end"]) - int(sliced["begin"] or 0) if sliced else None
