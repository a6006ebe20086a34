"""What steps that remove duplicates share: they find clusters, and drop or number their rows."""

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from alignment.config.schema.steps.base import On
from alignment.config.schema.steps.duplicates import Kept
from alignment.data.prepare.clusters import Clusters, Keep
from alignment.data.prepare.step import ROLES, Drop, Outcome, Row, Rows, Step

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
        compared = [_compared(row, self.on) for row in rows]
        self.uncompared = sum(not "".join(texts).strip() for texts in compared)
        self.clusters = found = self.clusters_of(compared, "longest" if self.keep == "longest" else "first")
        kept, counts = np.unique(found.kept, return_counts=True)
        self.sizes = {int(row): int(size) for row, size in zip(kept, counts, strict=True) if size > 1}
        largest = sorted(self.sizes, key=lambda row: (-self.sizes[row], row))
        alone = (row for row in kept.tolist() if row not in self.sizes)  # each has a number of its own
        self.numbers = {row: number for number, row in enumerate(itertools.chain(largest, alone), 1)}
        for row in largest[:SHOWN]:
            members = [row, *(int(one) for one in np.flatnonzero(found.kept == row) if one != row)]
            self.texts[row] = ["\n\n".join(filter(None, compared[one]))[:CHARACTERS] for one in members[:EXAMPLES]]
        self.origins = {row.place: row.origin for row in rows if row.place in self.sizes}

    def apply(self, row: Row) -> Outcome:
        """Drop a row that another one stands for, or note its cluster."""
        assert self.clusters is not None
        kept = int(self.clusters.kept[row.place])
        if self.keep == "all":
            return row.noting(cluster=self.numbers[kept])
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


def _compared(row: Row, on: On) -> tuple[str, ...]:
    """Return the texts of some roles; the calls of tools are part of the answer, as rows may differ in them alone."""
    texts = row.by_role(on)
    calls = [json.dumps(call, sort_keys=True, ensure_ascii=False) for call in _calls(row.value)]
    roles = ROLES[on]
    if not calls or "answer" not in roles:
        return texts
    place = roles.index("answer")
    return (*texts[:place], "\n\n".join(filter(None, (texts[place], *calls))), *texts[place + 1 :])


def _calls(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("tool_calls", "function_call"):
                if inner:
                    yield inner
            else:
                yield from _calls(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _calls(inner)


def in_words(kept: str, similarity: float, threshold: float, measure: str) -> str:
    """Return the similarity of a dropped row to the kept one, which rows between them may connect."""
    joined = "" if similarity >= threshold else ", connected by rows between them"
    return f"of {kept}, {measure} {similarity:.3f}{joined}"
