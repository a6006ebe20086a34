"""Steps that compare rows: exact, near and semantic duplicates, and overlap with evaluation data."""

from typing import Literal

from pydantic import Field

from alignment.config.schema.keys import DatasetEntry
from alignment.config.schema.parts import InputPath, Name
from alignment.config.schema.steps.base import AnyStep, On

Kept = Literal["first", "longest", "all"]


class DuplicatesEntry(AnyStep):
    """Keys of every step that removes duplicates."""

    on: On = "both"
    """The texts that are compared, prompts with prompts and answers with answers: `prompt`, `answer` (all answers, also
    the rejected one), `both`, or `all` texts of a row. All of them must agree.
    """
    keep: Kept = "first"
    """The row of a cluster that is kept: the `first`, or the `longest`. `all`: drop none, and note the number of each
    row's cluster as `cluster`.
    """
    label_column: Name | None = None
    """The column of the label. Rows whose texts agree and whose labels do not are no duplicates. `null`: the label or
    comparison that the layout reads; in rows of texts alone, and in rows without a layout, the column `label`.
    """
    conflicts: Literal["keep", "drop"] = "keep"
    """What to do with rows whose texts agree and whose labels do not: `keep` one row of each label, or `drop` all."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the note of the cluster."""
        return ("cluster",) if self.keep == "all" else ()


class ExactDuplicatesEntry(DuplicatesEntry):
    """Removal of copies."""

    kind: Literal["exact_duplicates"]
    """Drop rows whose texts are those of another row. Rows without text are no duplicates."""
    normalize: bool = False
    """Compare without case, runs of white space, and differences of Unicode's NFKC form."""


class NearDuplicatesEntry(DuplicatesEntry):
    """Removal of similar rows."""

    kind: Literal["near_duplicates"]
    """Drop rows whose texts share most of their n-grams with another row, by MinHash LSH and Jaccard similarity."""
    threshold: float = Field(default=0.7, ge=0.1, le=1)
    """Least Jaccard similarity of the n-grams of two texts."""
    ngram_size: int = Field(default=5, gt=0, le=100)
    """Characters or words of an n-gram."""
    unit: Literal["characters", "words"] = "characters"
    """What n-grams are made of."""


class SemanticDuplicatesEntry(DuplicatesEntry):
    """Removal of rows of the same meaning."""

    kind: Literal["semantic_duplicates"]
    """Drop rows whose embeddings are close to another row's."""
    model_name_or_path: InputPath
    """The embedding model: a folder or Hub id of sentence-transformers, or of transformers: then the last hidden states
    are averaged.
    """
    threshold: float = Field(default=0.95, gt=0, le=1)
    """Least cosine similarity of two embeddings."""
    max_length: int = Field(default=512, gt=0, le=10**6)
    """Number of tokens of a text that are read."""
    batch_size: int = Field(default=32, gt=0, le=10**6)
    """Number of texts that the model reads at once."""


class OverlapEntry(AnyStep):
    """Removal of evaluation data."""

    kind: Literal["overlap"]
    """Drop rows that share an n-gram with evaluation data, or are near-duplicates of them."""
    against: list[DatasetEntry] = Field(min_length=1)
    """The evaluation data, in any layout; in none, each string of a row is a text."""
    on: On = "both"
    """The texts that are looked at, of these data and the evaluation data: `prompt`, `answer`, `both`, or `all`."""
    ngram_size: int | None = Field(default=13, ge=2, le=100)
    """Drop rows that share this many words in a row, as GPT-3 did. `null`: do not compare n-grams."""
    max_rows: int | None = Field(default=None, gt=0, le=10**9)
    """Ignore n-grams that more rows have; GPT-3 had 10. `null`: ignore none."""
    threshold: float | None = Field(default=0.7, ge=0.1, le=1)
    """Drop rows whose prompt (with `on: answer`, answer) has this Jaccard similarity to one of the evaluation data.
    `null`: do not compare.
    """
