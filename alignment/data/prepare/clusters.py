"""Clusters of duplicate rows, and the row of each that is kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Keep = Literal["first", "longest"]
Rows = Sequence[tuple[str, ...]]  # the compared texts of each row, such as its prompt and its answer
Stated = NDArray[np.int64] | None  # (rows,) a number for what each row states of its texts; None: nothing


@dataclass(frozen=True, slots=True)
class Clusters:
    """Which row stands for each row.

    Args:
        kept: (rows,) int64: the place of the cluster's kept row; a row without duplicates stands for itself.
        similarity: (rows,) float64: of a dropped row and the kept one, from 0 to 1; NaN for kept rows.
        labels: (rows,) int64: the number of each row's cluster, of which a row of each stated label is kept.
    """

    kept: NDArray[np.int64]
    similarity: NDArray[np.float64]
    labels: NDArray[np.int64]

    @property
    def dropped(self) -> NDArray[np.int64]:
        """Places of the rows to drop, ascending."""
        return np.flatnonzero(self.kept != np.arange(len(self.kept)))


def kept_rows(labels: NDArray[np.int64], rows: Rows, keep: Keep, stated: Stated = None) -> NDArray[np.int64]:
    """Return the kept row of each row's cluster; of rows that state something else of their texts, one each.

    Args:
        labels: (rows,) the number of each row's cluster.
        keep: first: the first of a cluster; longest: that with the most characters, the first of several.
    """
    if stated is not None:
        labels = np.unique(np.stack([labels, stated], axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    order = np.arange(len(labels))
    if keep == "longest":
        lengths = np.fromiter((sum(map(len, row)) for row in rows), np.int64, len(labels))
        order = np.argsort(-lengths, kind="stable")
    names, first = np.unique(labels[order], return_index=True)
    return order[first][np.searchsorted(names, labels)]


def connected(edges: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the number of each row's connected component.

    Args:
        edges: (edges, 2) places of rows.
        count: rows.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)
