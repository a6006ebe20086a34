"""What steps that remove duplicates share: they find clusters, and drop or number their rows."""

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from alignment.config.schema.steps.base import On
from alignment.config.schema.steps.duplicates import DuplicatesEntry
from alignment.data.contradictions import Claim
from alignment.data.prepare.clusters import Clusters, Keep, Stated
from alignment.data.prepare.clusters import Rows as Compared
from alignment.data.prepare.labels import Conflicts, Labels, conflicts_in
from alignment.data.prepare.step import ROLES, Drop, Outcome, Row, Rows, Step, StepError
from alignment.data.texts import Role
from alignment.meter import say

SHOWN = 50  # clusters in the findings
EXAMPLES = 5  # texts of a cluster
CHARACTERS = 500  # of a text
ANSWERS: tuple[Role, ...] = ("answer", "rejected")
COMPARED: dict[On, tuple[Role, ...]] = {
    "prompt": ("prompt",),
    "answer": ANSWERS,
    "both": ("prompt", *ANSWERS),
    "all": ROLES["all"],
}


class Duplicates(Step):
    """Keeps one row of each cluster, or numbers the clusters."""

    LOOKS: ClassVar[bool] = True
    REASON: ClassVar[str]

    def __init__(self, common: DuplicatesEntry) -> None:
        self.common, self.roles, self.by = common, COMPARED[common.on], common.label_column
        self.labels = Labels(common.label_column)
        self.origins: dict[int, str] = {}  # of the rows that are kept of a cluster
        self.sizes: dict[int, int] = {}  # by the place of the kept row
        self.numbers: dict[int, int] = {}
        self.texts: dict[int, list[str]] = {}
        self.clusters: Clusters | None = None
        self.conflicts = Conflicts([])
        self.uncompared = 0

    def clusters_of(self, rows: Compared, keep: Keep, stated: Stated) -> Clusters:
        """Return the clusters of rows; `rows`: the compared texts; `stated`: a number for each row's label."""
        raise NotImplementedError

    def look(self, rows: Rows) -> None:
        """Find the clusters, and the rows whose texts agree and whose labels do not."""
        compared, labels, claims = self._read(rows)
        self.uncompared = sum(not "".join(texts).strip() for texts in compared)
        compared = _without_empty_columns(compared)
        stated = np.unique(labels, return_inverse=True)[1].reshape(-1) if any(labels) else None
        found = self.clusters_of(compared, "longest" if self.common.keep == "longest" else "first", stated)
        self.clusters, self.conflicts = found, conflicts_in(found.labels, labels, claims)
        kept, counts = np.unique(found.kept, return_counts=True)
        self.sizes = {int(row): int(size) for row, size in zip(kept, counts, strict=True) if size > 1}
        largest = sorted(self.sizes, key=lambda row: (-self.sizes[row], row))
        alone = (row for row in kept.tolist() if row not in self.sizes)  # each has a number of its own
        self.numbers = {row: number for number, row in enumerate(itertools.chain(largest, alone), 1)}
        for place in largest[:SHOWN]:
            members = [place, *(int(one) for one in np.flatnonzero(found.kept == place) if one != place)]
            self.texts[place] = ["\n\n".join(filter(None, compared[one]))[:CHARACTERS] for one in members[:EXAMPLES]]
        wanted = self.sizes.keys() | self.conflicts.others.keys()
        self.origins = {row.place: row.origin for row in rows if row.place in wanted}
        if self.conflicts.others:
            kept_ones = "all are kept" if self.common.keep == "all" else "one row of each label is kept"
            done = "all are dropped" if self.common.conflicts == "drop" else kept_ones
            many = f"{len(self.conflicts.others):,} rows have the texts of other rows and another label"
            say(f"step {self.common.label}: {many}; {done}")

    def apply(self, row: Row) -> Outcome:
        """Drop a row that another one stands for, or note its cluster."""
        assert self.clusters is not None
        kept, other = int(self.clusters.kept[row.place]), self.conflicts.others.get(row.place)
        if other is not None and self.common.conflicts == "drop":
            return Drop("label conflict", f"with {self.origins[other]}")
        if self.common.keep == "all":
            return row.noting(cluster=self.numbers[kept])
        if kept == row.place:
            return row
        return Drop(self.REASON, self.detail(self.origins[kept], float(self.clusters.similarity[row.place])))

    def detail(self, kept: str, similarity: float) -> str:
        """Return what a record states of a dropped row; `kept`: the origin of the row that stands for it."""
        return f"of {kept}"

    def findings(self) -> dict[str, Any]:
        """Return the number of clusters, the largest ones, and rows whose labels disagree."""
        return {
            "rows_in_clusters": sum(self.sizes.values()),
            "number_of_clusters": len(self.sizes),
            "rows_without_text": self.uncompared,
            "rows_in_label_conflicts": len(self.conflicts.others),
            "label_conflicts": [
                {self.origins[place]: label for place, label in group.items()}
                for group in self.conflicts.groups[:SHOWN]
            ],
            "clusters": [
                {"size": self.sizes[row], "texts": texts, "kept": self.origins[row]}
                for row, texts in self.texts.items()
            ],
        }

    def _read(self, rows: Rows) -> tuple[list[tuple[str, ...]], list[str], list[Sequence[Claim]]]:
        """Return the compared texts of each row, its label, and its claims.

        Raises: StepError if no row has the column of the label.
        """
        compared: list[tuple[str, ...]] = []
        labels: list[str] = []
        claims: list[Sequence[Claim]] = []
        for row in rows:
            compared.append(self._compared(row))
            label, claimed = self.labels(row) if self.common.label_column or self._compares_all(row) else ("", ())
            labels.append(label)
            claims.append(claimed)
        if self.common.label_column and not any(labels):
            raise StepError(f"step {self.common.label}: no row has label_column {self.common.label_column}")
        return compared, labels, claims

    def _compares_all(self, row: Row) -> bool:
        """Whether all prompts and answers of a row are compared, so that its label belongs to what is compared."""
        every = COMPARED["both"]
        return set(every) <= set(self.roles) or all(one.role in self.roles for one in row.texts if one.role in every)

    def _compared(self, row: Row) -> tuple[str, ...]:
        """Return the texts of the roles; calls of tools are part of the answer, as rows may differ in them alone."""
        texts = row.by_role(self.roles, without=self.labels.column_of(row))
        calls = [json.dumps(call, sort_keys=True, ensure_ascii=False) for call in _calls(row.value)]
        if not calls or "answer" not in self.roles:
            return texts
        place = self.roles.index("answer")
        return (*texts[:place], "\n\n".join(filter(None, (texts[place], *calls))), *texts[place + 1 :])


def _without_empty_columns(rows: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Leave out roles that no row has, but for one."""
    width = len(rows[0]) if rows else 0
    used = [place for place in range(width) if any(row[place] for row in rows)] or [0]
    return rows if len(used) == width else [tuple(row[place] for place in used) for row in rows]


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
