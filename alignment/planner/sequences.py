"""The training sequences that documents fill, by the tokens of some of them."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from alignment.config.schema import PretrainRecipe, Recipe
from alignment.data.rows import Demonstration
from alignment.errors import AlignmentError
from alignment.planner.skeleton import blueprint
from alignment.policy.tokenizer import load_tokenizer, template_of
from alignment.train.pretraining.rows import prepared

SAMPLE = 1000  # documents that are tokenised


def sequences_of(recipe: PretrainRecipe, rows: Sequence[Demonstration], before: Mapping[str, Recipe]) -> int | None:
    """Return the number of sequences; None without a tokenizer.

    Args:
        rows: all documents; of more than `SAMPLE`, as many are tokenised, evenly spaced.
        before: recipes of earlier stages by output_dir, of which one may make the model.
    """
    taken = rows if len(rows) <= SAMPLE else [rows[place * len(rows) // SAMPLE] for place in range(SAMPLE)]
    name = recipe.model_name_or_path
    while str(Path(name)) in before and not Path(name).exists():
        name = getattr(before[str(Path(name))], "model_name_or_path", "")
    here = recipe.model_copy(update={"model_name_or_path": name, "on_bad_row": "skip"})
    try:
        limits = (recipe.max_length, blueprint(name, before).context(recipe))
        limit = min((each for each in limits if each is not None), default=2**31)
        made = prepared(here, template_of(here, load_tokenizer(here)), limit, taken)
    except AlignmentError:
        return None
    tokens = sum(len(made.rows[place]["input_ids"]) for place in range(len(made.rows)))
    found = tokens / limit if recipe.packs else len(made.rows)
    return max(1, math.ceil(found * len(rows) / max(1, len(taken))))
