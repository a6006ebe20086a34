"""MinHash signatures of many texts at once, and the bands of locality-sensitive hashing.

Two sets of shingles with Jaccard similarity s have the same minimum under a random permutation with probability s
(Broder 1997, https://doi.org/10.1109/SEQUEN.1997.666900). A signature of b·r minima is cut into b bands of r; two texts
are candidates if they agree in all minima of one band, with probability 1 - (1 - s^r)^b (section 3.4 of Mining of
Massive Datasets, http://www.mmds.org). The permutations and the arithmetic are datasketch's scheme "affine32".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from alignment.data.prepare.shingles import Shingles, Unit, batches, mixed, normalised, shingled

RECALL = 0.99  # least probability that two texts whose similarity is the threshold become candidates
PERMUTATIONS = 256
_HALF = np.uint64(32)
_MIX = (np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35))  # MurmurHash3's 32-bit finaliser, as in datasketch


@dataclass(frozen=True, slots=True)
class Bands:
    """How a signature is cut: `count` bands of `rows` minima."""

    count: int
    rows: int

    def probability(self, similarity: float) -> float:
        """Return the probability that two texts of this Jaccard similarity become candidates."""
        return float(1 - (1 - similarity**self.rows) ** self.count)


def bands_for(threshold: float) -> Bands | None:
    """Return the most selective bands that find a pair at the threshold with probability `RECALL`.

    Returns: None if no bands of `PERMUTATIONS` minima do, for a threshold close to 0.
    """
    choices = (Bands(PERMUTATIONS // rows, rows) for rows in range(PERMUTATIONS, 0, -1))
    return next((bands for bands in choices if bands.probability(threshold) >= RECALL), None)


@dataclass(frozen=True, slots=True)
class Sketch:
    """What makes the bands of a text: shingles, permutations and bands.

    Args:
        size: units of a shingle.
        unit: characters or words.
        bands: from `bands_for`.
        seed: of the permutations.
    """

    size: int
    unit: Unit
    bands: Bands
    seed: int

    def shingles(self, rows: Sequence[tuple[str, ...]]) -> Shingles:
        """Return the shingles of rows of one or more texts; the same words in another place are another shingle."""
        columns = [shingled([normalised(row[place]) for row in rows], size=self.size, unit=self.unit)
                   for place in range(len(rows[0]))]  # fmt: skip
        return columns[0] if len(columns) == 1 else _united(columns)

    def keys(self, rows: Sequence[tuple[str, ...]]) -> NDArray[np.uint64]:
        """Return (rows, bands) uint64: a hash of each band; 0 where a row has no shingle."""
        keys = np.zeros((len(rows), self.bands.count), np.uint64)
        for part in batches([*map("".join, rows)]):
            shingles = self.shingles(rows[part])
            keys[part] = self._keys(shingles)
        return keys

    def signatures(self, shingles: Shingles) -> NDArray[np.uint32]:
        """Return (texts, bands · rows) uint32: the minimum of each permutation.

        A text without shingles has the largest value throughout.
        """
        multipliers, offsets = permutations(self.seed)
        filled = np.flatnonzero(np.diff(shingles.starts))
        count = self.bands.count * self.bands.rows
        found = np.full((len(shingles.starts) - 1, count), 0xFFFFFFFF, np.uint32)
        if not filled.size:
            return found
        hashes, starts = _mixed32((shingles.hashes >> _HALF).astype(np.uint32)), shingles.starts[filled]
        for place in range(count):
            found[filled, place] = np.minimum.reduceat(hashes * multipliers[place] + offsets[place], starts)
        return found

    def _keys(self, shingles: Shingles) -> NDArray[np.uint64]:
        signatures = self.signatures(shingles).astype(np.uint64)
        cut = signatures.reshape(len(signatures), self.bands.count, self.bands.rows)
        keys = np.zeros(cut.shape[:2], np.uint64)
        for place in range(self.bands.rows):
            keys = mixed(keys + cut[:, :, place] + np.uint64(1))
        keys[np.diff(shingles.starts) == 0] = 0
        return keys


@lru_cache(maxsize=4)
def permutations(seed: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return datasketch's multipliers and offsets for a seed."""
    from datasketch import MinHash

    multipliers, offsets = MinHash(num_perm=PERMUTATIONS, seed=seed, scheme="affine32").permutations
    return multipliers, offsets


def _mixed32(hashes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    first, second, third = np.uint32(16), np.uint32(13), np.uint32(16)
    hashes = (hashes ^ (hashes >> first)) * _MIX[0]
    hashes = (hashes ^ (hashes >> second)) * _MIX[1]
    return hashes ^ (hashes >> third)


def _united(columns: Sequence[Shingles]) -> Shingles:
    """Return the shingles of each row's texts as one set; hashes are changed by the text's place."""
    starts = np.sum([column.starts for column in columns], axis=0)
    hashes = np.empty(starts[-1], np.uint64)
    offset = starts[:-1].copy()
    for place, column in enumerate(columns):
        counts = np.diff(column.starts)
        where = np.repeat(offset - column.starts[:-1], counts) + np.arange(len(column.hashes))
        hashes[where] = mixed(column.hashes + np.uint64(place))
        offset += counts
    return Shingles(hashes, starts)
