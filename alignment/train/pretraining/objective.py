"""What an objective is: it makes training rows of documents, and a batch of rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from alignment.config.schema.pretrain import PretrainRecipe
from alignment.data.masks import IGNORE
from alignment.data.template import Template
from alignment.train.pretraining.documents import Document, ends_of

Row = dict[str, Any]
Batch = dict[str, Tensor]
DRAW = "draw"  # in a row: the numbers that, with the seed, decide what is drawn for it


@dataclass(frozen=True, slots=True)
class Setting:
    """What an objective needs of a recipe and a tokenizer."""

    recipe: PretrainRecipe
    tokenizer: Any
    limit: int  # tokens of a sequence
    opening: list[int]  # ids before a document
    closing: list[int]  # ids after a document

    @classmethod
    def of(cls, recipe: PretrainRecipe, template: Template, limit: int) -> "Setting":
        """Read them from a recipe and its template."""
        opening, closing = ends_of(template)
        return cls(recipe, template.tokenizer, limit, opening, closing)

    def generator(self, row: Row) -> np.random.Generator:
        """Return the random numbers of a row: they depend on the seed, the epoch and the row alone."""
        return np.random.default_rng([self.recipe.seed, *row[DRAW]])


class Objective(Protocol):
    """Makes rows and batches; `state` is what a stream's checkpoint keeps of it."""

    setting: Setting
    pairs: bool  # whether a prompt and its answer are kept apart
    words: bool  # whether the words of documents are needed

    def add(self, document: Document) -> list[Row]:
        """Return the rows that are complete with this document."""
        ...

    def rest(self) -> list[Row]:
        """Return the row that is not full, if there is one."""
        ...

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Return a batch for the model, with labels."""
        ...

    def state(self) -> dict[str, list[int]]:
        """Return the tokens that no row holds yet."""
        ...

    def restore(self, state: dict[str, list[int]]) -> None:
        """Restore `state`."""
        ...


def pieces(ids: list[int], size: int) -> list[list[int]]:
    """Cut ids into pieces of at most `size`."""
    return [ids[begin : begin + size] for begin in range(0, len(ids), size)]


Made = Callable[[Setting], Objective]
__all__ = ["DRAW", "IGNORE", "Batch", "Made", "Objective", "Row", "Setting", "pieces"]
