"""Removal of rows that overlap with evaluation data: shared n-grams, or near-duplicates."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from alignment.config.schema.keys import DatasetEntry
from alignment.config.schema.steps.base import On
from alignment.config.schema.steps.duplicates import OverlapEntry
from alignment.data.detection import detect
from alignment.data.prepare.exact import ROWS
from alignment.data.prepare.minhash import Sketch, bands_for
from alignment.data.prepare.near import matches
from alignment.data.prepare.shingles import batches, normalised, shingled
from alignment.data.prepare.step import ROLES, Drop, Outcome, Row, Rows, Step, StepError
from alignment.data.sources import read_entry
from alignment.errors import DataError, named_inputs, printable

SIZE = 5  # characters of a shingle, as in near_duplicates
Texts = list[tuple[str, str]]  # origin and text


class Overlap(Step):
    """Drops rows that share an n-gram with an evaluation row, or are near-duplicates of one."""

    LOOKS: ClassVar[bool] = True

    def __init__(self, entry: OverlapEntry, seed: int) -> None:
        self.entry, self.seed, self.roles = entry, seed, ROLES[entry.on]
        self.compared, self.questions = evaluation_texts(entry.against, entry.on)
        self.drops: dict[int, Drop] = {}
        self.numbers: dict[str, int] = {"evaluation_texts": len(self.compared)}

    def look(self, rows: Rows) -> None:
        """Find the rows to drop."""
        compared = [row.by_role(self.roles) for row in rows]
        if self.entry.ngram_size is not None:
            self._share_ngrams(compared, self.entry.ngram_size)
        if self.entry.threshold is not None:
            texts = [(_question(roles, self.entry.on),) for roles in compared]
            self.numbers["rows_without_text"] = sum(not text.strip() for (text,) in texts)
            self._resemble(texts, self.entry.threshold)

    def _share_ngrams(self, rows: Sequence[tuple[str, ...]], size: int) -> None:
        known, owners, short = _ngrams_of([text for _, text in self.compared], size)
        self.numbers["evaluation_texts_shorter_than_an_ngram"] = short
        jobs = (rows[first : first + ROWS] for first in range(0, len(rows), ROWS))
        found = [hit for part in self.mapped(partial(_shared, known=known, size=size), jobs) for hit in part]
        common = Counter(ngram for ngrams in found for ngram in ngrams)
        most = self.entry.max_rows
        ignored = {ngram for ngram, count in common.items() if most is not None and count > most}
        self.numbers["ngrams_ignored_as_common"] = len(ignored)
        for place, ngrams in enumerate(found):
            left = [ngram for ngram in ngrams if ngram not in ignored]
            if left:
                origin = self.compared[owners[left[0]]][0]
                self.drops[place] = Drop(f"shares {size} words in a row with evaluation data", f"with {origin}")

    def _resemble(self, rows: Sequence[tuple[str, ...]], threshold: float) -> None:
        bands = bands_for(threshold)
        assert bands is not None, "the schema's least threshold has bands"
        sketch = Sketch(SIZE, "characters", bands, self.seed)
        found = matches(
            rows, [(text,) for _, text in self.questions], sketch=sketch, threshold=threshold, mapped=self.mapped
        )
        for place, (other, share) in found.items():
            detail = f"of {self.questions[other][0]}, Jaccard similarity {share:.3f}"
            self.drops.setdefault(place, Drop("near-duplicate of evaluation data", detail))

    def apply(self, row: Row) -> Outcome:
        """Drop a row that was found."""
        return self.drops.get(row.place, row)

    def findings(self) -> dict[str, Any]:
        """Return how many texts were compared, and how many n-grams were not."""
        return dict(self.numbers)


def evaluation_texts(entries: Sequence[DatasetEntry], on: On) -> tuple[Texts, Texts]:
    """Read evaluation data in any layout, or in none: then each string of a row is a text.

    Returns: the texts whose n-grams count, and those that rows may resemble (`_question`).

    Raises: DataError or StepError, with exit code 2, if a file cannot be read, or has no text.
    """
    compared: Texts = []
    first: Texts = []
    for entry in entries:
        before = len(compared)
        with named_inputs(DataError):
            sources = read_entry(entry)
            layouts = [detect(source) for source in sources]
        for source, layout in zip(sources, layouts, strict=True):
            for raw in source.rows:
                if raw.fault is not None or not isinstance(raw.value, dict):
                    told = raw.fault or "the row is not an object with named fields"
                    raise StepError(printable(f"{raw.where}: {told}. {raw.remedy or ''}".strip()))
                row = Row(raw.value, raw.where, layout.name if layout is not None and layout.matches(raw.value) else "")
                roles = row.by_role(ROLES[on]) if row.layout else tuple(text.text for text in row.texts)
                texts = [(row.origin, text) for text in roles if text.strip()]
                compared += texts
                first += [(row.origin, _question(roles, on))] if row.layout and texts else texts
        if len(compared) == before:
            raise StepError(
                f"{printable(entry.path)} has no text to compare rows with ({on}). Name its columns with `columns`, or "
                "correct `on`."
            )
    return compared, first


def _question(texts: Sequence[str], on: On) -> str:
    """Return the text by which rows resemble each other: the prompt, or the answer of a row without one."""
    found = dict(zip(ROLES[on], texts, strict=True))
    return next((text for role in ("prompt", "answer") if (text := found.get(role, "")).strip()), "")


def _ngrams_of(texts: Sequence[str], size: int) -> tuple[NDArray[np.uint64], dict[int, int], int]:
    """Return the n-grams of all texts, ascending, the first text of each, and how many texts have none."""
    owners: dict[int, int] = {}
    short = 0
    for part in batches(texts):
        shingles = shingled([*map(normalised, texts[part])], size=size, unit="words", whole=False)
        places = np.repeat(np.arange(part.start, part.stop), np.diff(shingles.starts))
        short += int((np.diff(shingles.starts) == 0).sum())
        for ngram, place in zip(shingles.hashes.tolist(), places.tolist(), strict=True):
            owners.setdefault(ngram, place)
    return np.sort(np.fromiter(owners, np.uint64, len(owners))), owners, short


def _shared(rows: Sequence[tuple[str, ...]], known: NDArray[np.uint64], size: int) -> list[list[int]]:
    """Return the n-grams of each row that are among the known ones."""
    found: list[list[int]] = [[] for _ in rows]
    if not known.size:
        return found
    texts = [(place, text) for place, row in enumerate(rows) for text in row]
    for part in batches([text for _, text in texts]):
        shingles = shingled([normalised(text) for _, text in texts[part]], size=size, unit="words", whole=False)
        places = np.searchsorted(known, shingles.hashes)
        hits = np.flatnonzero(known[np.minimum(places, len(known) - 1)] == shingles.hashes)
        owners = np.searchsorted(shingles.starts, hits, "right") - 1
        for hit, owner in zip(shingles.hashes[hits].tolist(), owners.tolist(), strict=True):
            found[texts[part.start + owner][0]].append(hit)
    return [[*dict.fromkeys(hits)] for hits in found]


def build(entry: OverlapEntry, seed: int) -> Overlap:
    """Return the step.

    Raises: DataError or StepError, with exit code 2, if evaluation data cannot be read.
    """
    return Overlap(entry, seed % 2**32)
