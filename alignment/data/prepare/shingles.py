"""Texts as sets of hashed shingles, the pieces of k units that MinHash and exact Jaccard similarity compare.

A unit is a character or a word (section 3.2 of Mining of Massive Datasets, http://www.mmds.org). Hashes of all texts
of a batch are computed in whole numpy arrays; one loop step handles one place of a shingle, never one shingle.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Unit = Literal["characters", "words"]
BATCH = 1 << 16  # characters hashed at once: the arrays of a batch stay in the processor's cache
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))  # MurmurHash3's 64-bit finaliser
_SHIFT = np.uint64(33)
_SEPARATOR, _LETTER, _ALONE, _IGNORED = range(4)  # classes of characters; ignored ones do not end a word
_LAST = 0x110000
_ALONE_RANGES = (  # scripts without spaces between words; each character counts as a word
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF),  # Han
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shingles:
    """Hashed shingles of several texts, one after the other.

    Args:
        hashes: (shingles,) uint64; those of text i are `hashes[starts[i] : starts[i + 1]]`, repeated ones included.
        starts: (texts + 1,) int64.
    """

    hashes: NDArray[np.uint64]
    starts: NDArray[np.int64]


def normalised(text: str) -> str:
    """Return a text in Unicode's NFKC form, without case, each run of whitespace as one space."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def shingled(texts: Sequence[str], *, size: int, unit: Unit, whole: bool = True) -> Shingles:
    """Return the shingles of normalised texts.

    A text with fewer units than `size` has one shingle, the whole text; a text without units has none.

    Args:
        size: units of a shingle.
        unit: a word is a run of characters other than whitespace, without punctuation; a character of a script
            without spaces, such as Chinese, is a word.
        whole: false: a text with fewer units than `size` has no shingle.
    """
    codes, lengths = _codes(texts) if unit == "characters" else _words(texts)
    return _windows(codes, lengths, size, 1 if whole else 0)


def batches(texts: Sequence[str], characters: int = BATCH) -> Iterator[slice]:
    """Yield slices of texts that have about this many characters together, at least one text each."""
    first, held = 0, 0
    for place, text in enumerate(texts):
        held += len(text)
        if held >= characters:
            yield slice(first, place + 1)
            first, held = place + 1, 0
    if first < len(texts):
        yield slice(first, len(texts))


def mixed(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread each input bit over all output bits, one to one."""
    for multiplier in _MIX:
        hashes = (hashes ^ (hashes >> _SHIFT)) * multiplier
    return hashes ^ (hashes >> _SHIFT)


def _codes(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    joined = "".join(texts).encode("utf-32-le", "surrogatepass")
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    return np.frombuffer(joined, np.uint32).astype(np.uint64), lengths


def _words(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return hashes of words, and how many each text has."""
    codes, lengths = _codes(texts)
    owners = np.repeat(np.arange(len(texts)), lengths)
    kinds = _classes()[codes]
    kept = kinds != _IGNORED
    codes, owners, kinds = codes[kept], owners[kept], kinds[kept]
    if not codes.size:
        return codes, np.zeros(len(texts), np.int64)
    follows = np.zeros(len(codes), bool)  # a letter whose word began before it
    follows[1:] = (kinds[1:] == _LETTER) & (kinds[:-1] == _LETTER) & (owners[1:] == owners[:-1])
    begins = np.flatnonzero((kinds != _SEPARATOR) & ~follows)
    if not begins.size:
        return codes[:0], np.zeros(len(texts), np.int64)
    places = np.arange(len(codes)) - np.maximum.accumulate(np.where(follows, 0, np.arange(len(codes))))
    letters = mixed(codes + (places.astype(np.uint64) + np.uint64(1)) * _MULTIPLIER)
    letters[kinds == _SEPARATOR] = 0
    return mixed(np.add.reduceat(letters, begins)), np.bincount(owners[begins], minlength=len(texts))


def _windows(units: NDArray[np.uint64], lengths: NDArray[np.int64], size: int, least: int) -> Shingles:
    """Hash each run of `size` units within a text; zeros fill up a shorter text."""
    counts = np.where(lengths > 0, np.maximum(lengths - size + 1, least), 0)
    starts = np.concatenate([[0], np.cumsum(counts)])
    texts = np.arange(len(lengths))
    padded = np.zeros(len(units) + len(lengths) * (size - 1), np.uint64)
    padded[np.arange(len(units)) + np.repeat(texts, lengths) * (size - 1)] = units
    rolled = np.zeros(max(len(padded) - size + 1, 0), np.uint64)
    for place in range(size):
        rolled = rolled * _MULTIPLIER + padded[place : place + len(rolled)]
    begins = np.cumsum(lengths) - lengths + texts * (size - 1)
    return Shingles(mixed(rolled[np.repeat(begins - starts[:-1], counts) + np.arange(starts[-1])]), starts)


@lru_cache(maxsize=1)
def _classes() -> NDArray[np.uint8]:
    """Return the class of each code point."""
    ignored = ("P", "S", "C")  # punctuation, symbols, control and unassigned characters
    classes = np.full(_LAST, _LETTER, np.uint8)
    for code in range(0x20000):  # beyond: Han, and planes without assigned characters
        character = chr(code)
        if character.isspace():
            classes[code] = _SEPARATOR
        elif unicodedata.category(character)[0] in ignored:
            classes[code] = _IGNORED
    for first, last in _ALONE_RANGES:
        part = classes[first : last + 1]
        part[part == _LETTER] = _ALONE
    return classes
