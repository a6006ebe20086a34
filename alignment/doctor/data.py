"""`alignment check --data`: checks of data without a model."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from alignment.config.schema import Recipe
from alignment.data import Loaded, load_rows
from alignment.data.answer_labels import require_learnable
from alignment.data.readers import file_of
from alignment.errors import DataError, RecipeError, printable

MOST = 20  # bad rows that a message lists


def require_data(recipes: Sequence[Recipe], tell: Callable[[str], None]) -> None:
    """Read the data of recipes, report layouts and counts, and reject bad rows if the recipe does.

    Args:
        recipes: of one file, in their order; files that an earlier one writes are skipped.

    Raises: RecipeError with a line for each bad row.
    """
    faults: list[str] = []
    made: list[str] = []
    for recipe in recipes:
        for key in ("datasets", "eval_datasets"):
            entries = getattr(recipe, key, [])
            later = [entry.path for entry in entries if _within(entry.path, made)]
            if later:
                tell(f"{recipe.stage}: {', '.join(later)}: an earlier stage writes it; not checked")
            elif entries:
                faults += _faults(recipe, key, tell)
        made.append(recipe.output_dir)
    if faults:
        raise RecipeError(faults)


def _within(path: str, folders: Sequence[str]) -> bool:
    place = os.path.normpath(path)
    inside = any(place == os.path.normpath(f) or place.startswith(os.path.normpath(f) + os.sep) for f in folders)
    return inside and not Path(path).exists()


def _faults(recipe: Any, key: str, tell: Callable[[str], None]) -> list[str]:
    """Return the bad rows, and report what is read."""
    read = recipe.model_copy(update={"datasets": getattr(recipe, key)})
    try:
        loaded: Loaded[Any] = load_rows(read, on_bad_row="skip")
    except DataError as error:
        return [str(error)]
    rows = Counter(file_of(source, loaded.files) for source in loaded.sources)
    for file in loaded.files:
        layout = loaded.formats.get(file, "unknown")
        tell(printable(f"{recipe.stage}: {file}: layout {layout}, {rows[file]:,} rows"))
    if loaded.skipped and recipe.on_bad_row == "skip":
        tell(printable(f"{recipe.stage}: {len(loaded.skipped):,} bad rows are left out, first {loaded.skipped[0]}"))
    if not loaded.skipped or recipe.on_bad_row == "skip":
        try:
            require_learnable(recipe.stage if key == "datasets" else "", loaded.rows)
        except DataError as error:
            return [f"{recipe.stage}: {key}: {error}"]
        return []
    more = len(loaded.skipped) - MOST
    last = "correct the rows, or set on_bad_row: skip"
    return [*loaded.skipped[:MOST], f"{recipe.stage}: and {more:,} more bad rows; {last}" if more > 0 else last]
