"""Removal of rows whose texts are the same."""

from typing import ClassVar

from alignment.config.schema.steps.duplicates import ExactDuplicatesEntry
from alignment.data.prepare.clusters import Clusters, Keep, Rows, Stated
from alignment.data.prepare.duplicates import Duplicates
from alignment.data.prepare.exact import exact_duplicates


class ExactDuplicates(Duplicates):
    """Keeps one of the rows whose texts are the same."""

    REASON: ClassVar[str] = "exact duplicate"

    def __init__(self, entry: ExactDuplicatesEntry) -> None:
        super().__init__(entry)
        self.entry = entry

    def clusters_of(self, rows: Rows, keep: Keep, stated: Stated) -> Clusters:
        """Return the clusters of rows with the same texts."""
        normalise = self.entry.normalize
        return exact_duplicates(rows, normalise=normalise, keep=keep, stated=stated, mapped=self.mapped)


def build(entry: ExactDuplicatesEntry, seed: int) -> ExactDuplicates:
    """Return the step."""
    return ExactDuplicates(entry)
