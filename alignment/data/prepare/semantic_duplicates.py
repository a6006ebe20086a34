"""Removal of rows whose embeddings are close."""

from typing import ClassVar

from alignment.config.schema.steps.duplicates import SemanticDuplicatesEntry
from alignment.data.prepare.clusters import Clusters, Keep, Rows, Stated
from alignment.data.prepare.duplicates import Duplicates, in_words
from alignment.data.prepare.semantic import embedder, semantic_duplicates


class SemanticDuplicates(Duplicates):
    """Keeps one of the rows whose embeddings are close."""

    REASON: ClassVar[str] = "semantic duplicate"

    def __init__(self, entry: SemanticDuplicatesEntry, seed: int) -> None:
        super().__init__(entry)
        self.entry, self.seed = entry, seed
        self.embed = embedder(entry.model_name_or_path, max_length=entry.max_length, batch_size=entry.batch_size)

    def clusters_of(self, rows: Rows, keep: Keep, stated: Stated) -> Clusters:
        """Return the clusters of rows with close embeddings."""
        least = self.entry.threshold
        return semantic_duplicates(rows, embed=self.embed, threshold=least, seed=self.seed, keep=keep, stated=stated)

    def detail(self, kept: str, similarity: float) -> str:
        """Return the similarity to the kept row."""
        return in_words(kept, similarity, self.entry.threshold, "cosine similarity")


def build(entry: SemanticDuplicatesEntry, seed: int) -> SemanticDuplicates:
    """Return the step.

    Raises: StepError if the model cannot be loaded.
    """
    return SemanticDuplicates(entry, seed % 2**32)
