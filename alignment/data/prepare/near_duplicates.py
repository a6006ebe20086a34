"""Removal of rows whose texts share most of their shingles."""

from typing import ClassVar

from alignment.config.schema.steps.duplicates import NearDuplicatesEntry
from alignment.data.prepare.clusters import Clusters, Keep, Rows, Stated
from alignment.data.prepare.duplicates import Duplicates, in_words
from alignment.data.prepare.minhash import Sketch, bands_for
from alignment.data.prepare.near import near_duplicates


class NearDuplicates(Duplicates):
    """Keeps one of the rows whose texts share most of their shingles."""

    REASON: ClassVar[str] = "near-duplicate"

    def __init__(self, entry: NearDuplicatesEntry, seed: int) -> None:
        super().__init__(entry)
        bands = bands_for(entry.threshold)
        assert bands is not None, "the schema's least threshold has bands"
        self.entry, self.sketch = entry, Sketch(entry.ngram_size, entry.unit, bands, seed)

    def clusters_of(self, rows: Rows, keep: Keep, stated: Stated) -> Clusters:
        """Return the clusters of similar rows."""
        least = self.entry.threshold
        return near_duplicates(rows, sketch=self.sketch, threshold=least, keep=keep, stated=stated, mapped=self.mapped)

    def detail(self, kept: str, similarity: float) -> str:
        """Return the similarity to the kept row."""
        return in_words(kept, similarity, self.entry.threshold, "Jaccard similarity")


def build(entry: NearDuplicatesEntry, seed: int) -> NearDuplicates:
    """Return the step."""
    return NearDuplicates(entry, seed % 2**32)
