"""`alignment preview`: the rows that a recipe trains on."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from alignment.config.documents import read_document
from alignment.config.loading import check_recipe
from alignment.config.pipelines import is_pipeline
from alignment.config.schema import Recipe
from alignment.config.secrets import refuse_keys_in_words
from alignment.errors import AlignmentError, RecipeError
from alignment.preview.origins import locate
from alignment.preview.rows import Row, Stage, Tokens
from alignment.preview.segments import segments
from alignment.preview.stages import Written
from alignment.preview.wording import stop_of
from alignment.train.trial import require_accepted

ROWS = 20  # shown by default
Reader = Callable[[Any, Any], Stage]  # of a recipe, and its `Written`; None if it names no model
_SKIPPED = re.compile(r"(.*?:\d+)(?:: | )(.*)", re.DOTALL)


class Refused(AlignmentError):
    """Training would reject the recipe, with this message."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Preview:
    """What a recipe trains, and what it is shown with."""

    recipe: Recipe
    stage: Stage
    rows: list[Row]
    tokenizer: Any
    stops: Sequence[int]

    def inputs(self) -> list[str]:
        """Return the files that were read."""
        model = getattr(self.recipe, "model_name_or_path", "")
        return [path for path in (self.recipe.source, model, *self.stage.files) if path]

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` writes."""
        return {
            "stage": self.stage.name,
            "rows": [self._row(row) for row in self.rows],
            "skipped": [skipped(line) for line in self.stage.skipped],
            "layouts": self.stage.layouts(),
            "lengths": self.stage.lengths().to_json(),
            "counts": self.stage.counts,
        }

    def _facts(self, tokens: Tokens) -> dict[str, Any]:
        stop = stop_of(tokens, self.tokenizer, self.stops)
        found: dict[str, Any] = {"tokens": len(tokens.ids), "trained_tokens": sum(tokens.trained), "stop": stop}
        if tokens.cut:
            whole = Tokens([*tokens.ids, *tokens.cut], [False] * len(tokens.ids) + [True] * len(tokens.cut))
            text = segments(self.tokenizer, whole)[-1]["text"]
            found["cut"] = {"text": text, "tokens": len(tokens.cut)}
        return found

    def _row(self, row: Row) -> dict[str, Any]:
        texts = {name: segments(self.tokenizer, tokens) for name, tokens in row.sequences.items()}
        if not texts:
            texts = {"segments": [{"text": part.text, "trained": False} for part in row.parts]}
        found: dict[str, Any] = {"source": row.source, "layout": row.layout, **texts}
        if row.probability is not None:
            found["probability"] = row.probability
        if row.question is not None:
            found["question"] = row.question
        if row.read_by:
            found["read_by"] = row.read_by
        told = {name: self._facts(tokens) for name, tokens in row.sequences.items()}
        found |= told["segments"] if "segments" in told else {"facts": told} if told else {}
        found["origins"] = [{"part": part.name, "column": part.column} for part in row.parts]
        return found


def preview(
    path: str, overrides: Sequence[str], count: int | None, reader_of: Callable[[str], Reader | None]
) -> Preview:
    """Make the rows that a recipe trains.

    Args:
        overrides: `--key value` that change the recipe. count: rows to show.
        reader_of: returns the function that reads the rows of a stage; None if it has none.

    Raises: Refused if training would refuse, with its message.
    """
    if count is not None and count < 1:
        raise RecipeError([f"--rows {count}: give a number of rows from 1 on"])
    refuse_keys_in_words(list(overrides))
    if is_pipeline(read_document(path)):
        raise RecipeError([f"{path}: is a pipeline; name the recipe of one of its stages"])
    recipe = check_recipe(path, overrides)
    require_accepted([recipe], here=False)
    read = reader_of(recipe.stage)
    if read is None:
        raise RecipeError(
            [
                f"{path}: stage {recipe.stage} has no preview, as recipes/{recipe.stage}.py defines no `preview`; run "
                "`alignment check --data` and `alignment doctor` to check its data"
            ]
        )
    try:
        written = Written.of(recipe) if getattr(recipe, "model_name_or_path", "") else None
        stage = replace(read(recipe, written), name=recipe.stage)
        rows = stage.shown(ROWS if count is None else count)
        if not getattr(recipe, "streaming", False):  # a stream is not read whole
            locate(rows, [*getattr(recipe, "datasets", []), *getattr(recipe, "eval_datasets", [])])
    except AlignmentError as error:
        raise Refused(str(error)) from error
    tokenizer, stops = (written.tokenizer, written.template.stop_token_ids) if written else (None, [])
    return Preview(recipe, stage, rows, tokenizer, [] if recipe.STAGE.splits else stops)  # documents hold no answers


def skipped(line: str) -> dict[str, str]:
    """Part "file:line: reason"."""
    match = _SKIPPED.fullmatch(line)
    return {"source": match[1], "reason": match[2]} if match else {"source": "", "reason": line}
