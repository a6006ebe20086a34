"""What steps that remove duplicates share: they find clusters, and drop or number their rows."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from alignment.config.schema.steps.base import On
from alignment.config.schema.steps.duplicates import Kept
from alignment.data.prepare.clusters import Clusters, Keep
from alignment.data.prepare.step import Drop, Outcome, Row, Rows, Step

SHOWN = 50  # clusters in the findings
EXAMPLES = 5  # texts of a cluster
CHARACTERS = 500  # of a text


class Duplicates(Step):
    """Keeps one row of each cluster, or numbers the clusters."""

    LOOKS: ClassVar[bool] = True
    REASON: ClassVar[str]

    def __init__(self, on: On, keep: Kept) -> None:
        self.on, self.keep = on, keep
        self.origins: dict[int, str] = {}  # of the rows that are kept of a cluster
        self.sizes: dict[int, int] = {}  # by the place of the kept row
        self.numbers: dict[int, int] = {}
        self.texts: dict[int, list[str]] = {}
        self.clusters: Clusters | None = None
        self.uncompared = 0

    def clusters_of(self, rows: Sequence[tuple[str, ...]], keep: Keep) -> Clusters:
        """Return the clusters of rows; `rows`: the compared texts."""
        raise NotImplementedError

    def look(self, rows: Rows) -> None:
        """Find the clusters."""
        compared = [row.by_role(self.on) for row in rows]
        self.uncompared = sum(not "".join(texts).strip() for texts in compared)
        self.clusters = found = self.clusters_of(compared, "longest" if self.keep == "longest" else "first")
        kept, counts = np.unique(found.kept, return_counts=True)
        self.sizes = {int(row): int(size) for row, size in zip(kept, counts, strict=True) if size > 1}
        largest = sorted(self.sizes, key=lambda row: (-self.sizes[row], row))
        self.numbers = {row: number for number, row in enumerate(largest, 1)}
        for row in largest[:SHOWN]:
            members = [row, *(int(one) for one in np.flatnonzero(found.kept == row) if one != row)]
            self.texts[row] = ["\n\n".join(filter(None, compared[one]))[:CHARACTERS] for one in members[:EXAMPLES]]
        self.origins = {row.place: row.origin for row in rows if row.place in self.sizes}

    def apply(self, row: Row) -> Outcome:
        """Drop a row that another one stands for, or note its cluster."""
        assert self.clusters is not None
        kept = int(self.clusters.kept[row.place])
        if self.keep == "all":
            return row.noting(cluster=self.numbers.get(kept))
        if kept == row.place:
            return row
        return Drop(self.REASON, self.detail(self.origins[kept], float(self.clusters.similarity[row.place])))

    def detail(self, kept: str, similarity: float) -> str:
        """Return what a record states of a dropped row; `kept`: the origin of the row that stands for it."""
        return f"of {kept}"

    def findings(self) -> dict[str, Any]:
        """Return the number of clusters, and the largest ones."""
        assert self.clusters is not None
        return {
            "rows_in_clusters": sum(self.sizes.values()),
            "number_of_clusters": len(self.sizes),
            "rows_without_text": self.uncompared,
            "clusters": [
                {"size": self.sizes[row], "texts": texts, "kept": self.origins[row]}
                for row, texts in self.texts.items()
            ],
        }


def in_words(kept: str, similarity: float, threshold: float, measure: str) -> str:
    """Return the similarity of a dropped row to the kept one, which rows between them may connect."""
    joined = "" if similarity >= threshold else ", connected by rows between them"
    return f"of {kept}, {measure} {similarity:.3f}{joined}"
