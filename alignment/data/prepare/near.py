"""Near-duplicates: candidates share a band of their MinHash signatures, and exact Jaccard similarity decides.

Each band is sorted, so memory is `8 · bands` bytes a row. In a band that many rows share, each row is compared with the
group's first row and its `WINDOW` next neighbours, ordered by the following band; work stays linear in rows.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.data.prepare.clusters import Clusters, Keep, Rows, Stated, connected, kept_rows
from alignment.data.prepare.exact import ROWS
from alignment.data.prepare.minhash import Sketch
from alignment.data.prepare.shingles import BATCH, Shingles
from alignment.data.prepare.step import Mapper

WINDOW = 16
Pairs = NDArray[np.int64]  # (pairs, 2) places of rows
Job = tuple[Rows, Pairs]  # rows, and pairs of places in them


def near_duplicates(
    rows: Rows, *, sketch: Sketch, threshold: float, keep: Keep = "first", stated: Stated = None, mapped: Mapper = map
) -> Clusters:
    """Find rows whose texts are each similar: prompts with prompts, answers with answers.

    Rows that are connected by pairs at or above the threshold form a cluster. A row without words or characters is no
    duplicate of another; two empty texts beside texts that are not are the same.

    Args:
        threshold: Jaccard similarity of the shingles of each text, above 0 and at most 1.
        mapped: applies a function to jobs, in this process or in others; the result is the same.
    """
    keys = [*mapped(sketch.keys, _parts(rows))]
    labels = np.arange(len(rows))
    if keys:
        labels = _labels(np.concatenate(keys), rows, sketch, threshold, mapped)
    kept = kept_rows(labels, rows, keep, stated)
    similarity = np.full(len(rows), np.nan)
    dropped = np.flatnonzero(kept != np.arange(len(rows)))
    similarity[dropped] = similarities(rows, np.stack([dropped, kept[dropped]], axis=1), sketch, mapped)
    return Clusters(kept, similarity, labels)


def similarities(rows: Rows, pairs: Pairs, sketch: Sketch, mapped: Mapper = map) -> NDArray[np.float64]:
    """Return (pairs,) the least Jaccard similarity of a pair's texts.

    Shingles are compared by hashes of 64 bits.
    """
    found = [*mapped(partial(_compared, sketch=sketch), _jobs(rows, pairs))]
    return np.concatenate(found) if found else np.zeros(0)


def _labels(
    keys: NDArray[np.uint64], rows: Rows, sketch: Sketch, threshold: float, mapped: Mapper
) -> NDArray[np.int64]:
    labels, edges = np.arange(len(rows)), np.zeros((0, 2), np.int64)
    for band in range(keys.shape[1]):
        pairs = _candidates(keys[:, band], keys[:, (band + 1) % keys.shape[1]])
        pairs = pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]]
        similar = similarities(rows, pairs, sketch, mapped) >= threshold
        if similar.any():
            edges = np.concatenate([edges, pairs[similar]])
            labels = connected(edges, len(rows))
    return labels


def matches(
    rows: Rows, others: Rows, *, sketch: Sketch, threshold: float, mapped: Mapper = map
) -> dict[int, tuple[int, float]]:
    """Find rows that are near-duplicates of rows of another data set.

    Returns: of each such row the place of another row that is similar, the first one found, and the similarity.
    """
    keys, known = ([*mapped(sketch.keys, _parts(each))] for each in (rows, others))
    found: dict[int, tuple[int, float]] = {}
    if not keys or not known:
        return found
    mine, theirs = np.concatenate(keys), np.concatenate(known)
    both = _Joined(rows, others)
    for band in range(mine.shape[1]):
        pairs = _across(mine[:, band], theirs[:, band])
        pairs = pairs[[row not in found for row in pairs[:, 0].tolist()]]
        shares = similarities(both, pairs + np.array([0, len(rows)]), sketch, mapped)
        for (row, other), share in zip(pairs.tolist(), shares.tolist(), strict=True):
            if share >= threshold and row not in found:
                found[row] = (other, share)
    return found


class _Joined(Sequence[tuple[str, ...]]):
    """The rows of two data sets, one after the other."""

    def __init__(self, first: Rows, second: Rows) -> None:
        self.first, self.second = first, second

    def __len__(self) -> int:
        return len(self.first) + len(self.second)

    def __getitem__(self, place: Any) -> Any:
        return self.first[place] if place < len(self.first) else self.second[place - len(self.first)]


def _across(keys: NDArray[np.uint64], others: NDArray[np.uint64]) -> Pairs:
    """Return pairs of a row and one of the others with the same key, at most `WINDOW` for each row."""
    order = np.argsort(others, kind="stable")
    low, high = (np.searchsorted(others[order], keys, side) for side in ("left", "right"))
    counts = np.where(keys == 0, 0, np.minimum(high - low, WINDOW))
    rows = np.repeat(np.arange(len(keys)), counts)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([rows, order[low[rows] + within]], axis=1)


def _parts(rows: Rows) -> Iterator[Rows]:
    return (rows[first : first + ROWS] for first in range(0, len(rows), ROWS))


def _candidates(keys: NDArray[np.uint64], following: NDArray[np.uint64]) -> Pairs:
    """Return pairs of rows with the same key, the lower place first, sorted."""
    order = np.argsort(keys, kind="stable")
    order = order[keys[order] != 0]
    same = keys[order[1:]] == keys[order[:-1]]
    shared = np.zeros(len(order), bool)
    shared[1:] |= same
    shared[:-1] |= same
    order = order[shared]
    order = order[np.lexsort((order, following[order], keys[order]))]
    groups = keys[order]
    firsts = order[np.searchsorted(groups, groups)]
    found = [np.stack([firsts, order], axis=1)]
    for distance in range(1, min(WINDOW, len(order) - 1) + 1):
        near = np.flatnonzero(groups[distance:] == groups[:-distance])
        if not near.size:
            break
        found.append(np.stack([order[near], order[near + distance]], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    codes = _distinct(pairs[:, 0] * len(keys) + pairs[:, 1])
    return np.stack(np.divmod(codes, len(keys)), axis=1)


def _jobs(rows: Rows, pairs: Pairs) -> Iterator[Job]:
    """Yield pairs with their rows, about `16 · BATCH` characters at a time."""
    first, characters = 0, 0
    lengths: dict[int, int] = {}
    for place, pair in enumerate(pairs.tolist()):
        for row in pair:
            if row not in lengths:
                lengths[row] = sum(map(len, rows[row]))
                characters += lengths[row]
        if characters >= 16 * BATCH or place + 1 == len(pairs):
            names, places = np.unique(pairs[first : place + 1], return_inverse=True)
            yield [rows[name] for name in names.tolist()], places.reshape(-1, 2)
            first, characters = place + 1, 0
            lengths.clear()


def _compared(job: Job, sketch: Sketch) -> NDArray[np.float64]:
    rows, pairs = job
    columns = [[(row[place],) for row in rows] for place in range(len(rows[0]))]
    return np.min([_jaccard(sketch.shingles(column), pairs) for column in columns], axis=0)


def _jaccard(shingles: Shingles, pairs: Pairs) -> NDArray[np.float64]:
    """Return the size of the intersection over that of the union; 1 for two empty sets."""
    from scipy.sparse import csr_array

    owners = np.repeat(np.arange(len(shingles.starts) - 1), np.diff(shingles.starts))
    names, hashes = np.unique(shingles.hashes, return_inverse=True)
    codes = _distinct(owners * max(len(names), 1) + hashes)
    owners, hashes = np.divmod(codes, max(len(names), 1))
    sizes = np.bincount(owners, minlength=len(shingles.starts) - 1)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    table = csr_array((np.ones(len(codes), np.int32), hashes, starts), shape=(len(sizes), max(len(names), 1)))
    both = np.asarray(table[pairs[:, 0]].multiply(table[pairs[:, 1]]).sum(axis=1)).ravel()
    either = sizes[pairs[:, 0]] + sizes[pairs[:, 1]] - both
    return np.where(either == 0, 1.0, both / np.maximum(either, 1))


def _distinct(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the different codes, ascending. np.unique builds a hash table, which takes many times as long here."""
    codes = np.sort(codes)
    return codes[np.concatenate([[True], codes[1:] != codes[:-1]])] if codes.size else codes
