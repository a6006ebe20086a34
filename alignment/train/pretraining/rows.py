"""All rows of a recipe's text, where it fits into memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import Dataset

from alignment.config.schema.pretrain import PretrainRecipe
from alignment.data.load import load_demonstrations
from alignment.data.rows import Demonstration
from alignment.data.splits import Split, load_split
from alignment.data.streamed import head
from alignment.data.template import Template
from alignment.errors import DataError, ModelError, named_inputs
from alignment.meter import say_left_out
from alignment.train.pretraining.causal import Causal
from alignment.train.pretraining.documents import Documents
from alignment.train.pretraining.objective import DRAW, Objective, Row
from alignment.train.pretraining.objectives import objective_of
from alignment.train.token_rows import TokenRows

FIXED = 2**32  # in place of the epoch, for what is evaluated: the same draws every time


@dataclass(slots=True)
class Prepared:
    """Rows ready for the trainer, and what was left out."""

    rows: TokenRows = field(default_factory=TokenRows)
    places: list[int] = field(default_factory=list)  # of each row: which demonstration its last document comes from
    documents: int = 0
    tokens: int = 0
    size: int = 0  # bytes of the documents in UTF-8; of held-out text, of its predicted tokens
    skipped: list[str] = field(default_factory=list)  # "file:line: reason"

    def counts(self) -> dict[str, int]:
        """What the manifest records."""
        return {
            "rows": len(self.rows),
            "documents": self.documents,
            "tokens": self.tokens,
            "rows_skipped": len(self.skipped),
        }


class EpochRows(Dataset[Row]):
    """Rows with the numbers that their draws depend on."""

    def __init__(self, rows: TokenRows, epoch: int = 0) -> None:
        self.rows, self.epoch = rows, epoch

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def __getitem__(self, place: int) -> Row:
        """Return a row."""
        return {**self.rows[place], DRAW: [self.epoch, place]}


def prepare(
    rows: Sequence[Demonstration], documents: Documents, objective: Objective, *, on_bad_row: str = "stop"
) -> Prepared:
    """Tokenise rows of text and make training rows of them.

    Raises: DataError naming a row that cannot be used, where `on_bad_row` is stop.
    """
    made = Prepared()
    for place, row in enumerate(rows):
        try:
            found = documents.read(row)
            rows_made = [row for document in found for row in objective.add(document)]
        except DataError as error:
            if on_bad_row == "stop":
                raise DataError(f"{row.source}: {error} (on_bad_row: skip leaves such rows out).") from error
            made.skipped.append(f"{row.source}: {error}")
            continue
        for document in found:
            made.documents += 1
            made.tokens += len(document.ids) + len(document.answer or ())
            made.size += document.size
        _add(made, rows_made, place)
    _add(made, objective.rest(), len(rows) - 1)
    say_left_out(made.skipped, len(rows), "rows")
    return made


def _add(made: Prepared, rows: list[Row], place: int) -> None:
    made.rows.extend(rows)
    made.places += [place] * len(rows)


@named_inputs(DataError, ModelError)
def prepared_split(
    recipe: PretrainRecipe, template: Template, limit: int
) -> tuple[Split[Demonstration], Prepared, Prepared]:
    """Read a recipe's text and make rows of it, those of training and those held out; of a stream, of its first rows.

    Returns: what was read, the training rows, the held-out rows.

    Raises: DataError.
    """
    if recipe.streaming:
        data = _head_and_held_out(recipe)
    else:
        data = load_split(load_demonstrations, recipe, recipe.seed)
    train = prepared(recipe, template, limit, data.train)
    return data, train, prepared(recipe, template, limit, data.held_out, held_out=True)


def _head_and_held_out(recipe: PretrainRecipe) -> Split[Demonstration]:
    first = head(recipe.datasets, recipe.on_bad_row)
    data = Split(first.rows, [], first.files, first.skipped, first.formats)
    if recipe.eval_datasets:
        options: dict[str, Any] = {"on_bad_row": recipe.on_bad_row, "seed": recipe.seed}
        held_out = load_demonstrations(recipe.eval_datasets, max_samples=recipe.max_eval_samples, **options)
        data.held_out, data.files = held_out.rows, data.files | held_out.files
        data.skipped, data.formats = held_out.skipped, data.formats | held_out.formats
    return data


def prepared(
    recipe: PretrainRecipe, template: Template, limit: int, rows: Sequence[Demonstration], *, held_out: bool = False
) -> Prepared:
    """Make rows of text that was read.

    Args:
        held_out: `size` leaves out the bytes of tokens that are not predicted.

    Raises: DataError.
    """
    objective = objective_of(recipe, template, limit)
    documents = Documents(template, pairs=objective.pairs, words=objective.words)
    if held_out and isinstance(objective, Causal):
        objective.counts = True
    made = prepare(rows, documents, objective, on_bad_row=recipe.on_bad_row)
    if isinstance(objective, Causal):
        made.size -= objective.unpredicted
    return made


@named_inputs(DataError)
def require_rows(train: Prepared) -> None:
    """Refuse data without a sequence to learn.

    Raises: DataError.
    """
    if not len(train.rows):
        reason = f"; all {len(train.skipped)} were left out, the first is {train.skipped[0]}" if train.skipped else ""
        raise DataError(f"no training sequence is left{reason}. Give text of at least two tokens.")


def first_rows(rows: Sequence[Any], count: int) -> TokenRows:
    """Return the first rows, to try a trainer with."""
    return TokenRows(rows[place] for place in range(min(count, len(rows))))
