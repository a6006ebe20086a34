"""Rows whose texts are the same."""

from functools import partial

import numpy as np
import xxhash
from numpy.typing import NDArray

from alignment.data.prepare.clusters import Clusters, Keep, Rows, Stated, kept_rows
from alignment.data.prepare.shingles import normalised
from alignment.data.prepare.step import Mapper

ROWS = 10_000  # of one job


def exact_duplicates(
    rows: Rows, *, normalise: bool = False, keep: Keep = "first", stated: Stated = None, mapped: Mapper = map
) -> Clusters:
    """Find rows with the same texts.

    A row whose texts are all empty, or only whitespace, is no duplicate of another.

    Args:
        normalise: compare without case, runs of whitespace, and differences of Unicode's NFKC form.
        mapped: applies a function to jobs, in this process or in others.
    """
    jobs = (rows[first : first + ROWS] for first in range(0, len(rows), ROWS))
    keys = [*mapped(partial(digests, normalise=normalise), jobs)]
    labels = np.arange(len(rows))
    if keys:
        found = np.concatenate(keys)
        order = np.lexsort((found[:, 1], found[:, 0]))
        changes = np.ones(len(order), bool)
        changes[1:] = (found[order[1:]] != found[order[:-1]]).any(axis=1)
        changes |= ~found[order].any(axis=1)
        labels[order] = np.cumsum(changes)
    kept = kept_rows(labels, rows, keep, stated)
    return Clusters(kept, np.where(kept == np.arange(len(rows)), np.nan, 1.0), labels)


def digests(rows: Rows, *, normalise: bool) -> NDArray[np.uint64]:
    """Return (rows, 2) uint64: a hash of 128 bits of each row's texts; zeros where they are empty."""
    found = np.zeros((len(rows), 2), np.uint64)
    for place, row in enumerate(rows):
        texts = [*map(normalised, row)] if normalise else row
        if any(text.strip() for text in texts):
            lengths = ",".join(str(len(text)) for text in texts)
            key = xxhash.xxh3_128_digest("\0".join([lengths, *texts]).encode("utf-8", "surrogatepass"))
            found[place] = np.frombuffer(key, np.uint64)
    return found
