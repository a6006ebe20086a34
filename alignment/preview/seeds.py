"""The seeds of stage synthesize, each with a prompt that the writer is given about it; makes no call."""

import importlib
from typing import Any

from alignment.config.schema.synthesize import SynthesizeRecipe
from alignment.errors import DataError
from alignment.preview.origins import parts_of_prompt
from alignment.preview.rows import Lengths, Row, Stage
from alignment.synthesize.rows import load_seeds


def seeds_shown(recipe: SynthesizeRecipe, written: Any) -> Stage:
    """Read what `alignment synthesize` reads.

    Raises: DataError as synthesis does, or if the method reads no data.
    """
    method = importlib.import_module(f"alignment.synthesize.{recipe.method.kind}")
    if not recipe.method.SEEDS:
        raise DataError(f"method {recipe.method.kind} reads no data: the writer is given its chat template alone.")
    found = load_seeds(recipe)

    def build(place: int) -> Row:
        seed = found.seeds[place]
        return Row(seed.source, {}, parts_of_prompt(seed.prompt), question=method.shown(recipe, found.seeds, place))

    sources = [seed.source for seed in found.seeds]
    counts = {"seeds": {"different": len(sources)}}
    return Stage(
        "synthesize",
        sources,
        build,
        lambda: Lengths([], []),
        found.skipped,
        found.files,
        found.formats,
        counts,
        unit="seeds",
        asked="writer",
    )
