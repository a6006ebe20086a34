"""Rows with planted duplicates of known similarity, for benchmarks and tests of duplicate removal.

Words follow each other as in a corpus: each next word is one that follows the last word somewhere in the corpus. A
near-duplicate has both texts of an earlier row, each with one run of letters replaced, so that the Jaccard similarity
of the texts' runs of five characters is the least one at or above the goal.
"""

import json
import random
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SIZE = 5  # characters of a shingle
WORDS = {"prompt": 14, "completion": 22}  # of a row's texts


@dataclass(frozen=True, slots=True)
class Planted:
    """What is in a file.

    Args:
        near: pairs of places: a row, and its planted near-duplicate.
        exact: pairs of places: a row, and its copy.
        similarity: of each near pair: the lower one of both texts.
    """

    rows: int
    near: list[tuple[int, int]]
    exact: list[tuple[int, int]]
    similarity: list[float]


def write(path: Path, corpus: Sequence[str], *, rows: int, similarity: float, seed: int) -> Planted:
    """Write a JSONL file of prompts and completions; 5 % are near-duplicates, 2 % copies, 2 % hold HTML and spaces."""
    drawn, chance = np.random.default_rng(seed), random.Random(seed)
    near, exact, noisy = rows // 20, rows // 50, rows // 50
    own = rows - near - exact
    columns = [sentences(corpus, own, words, drawn) for words in WORDS.values()]
    texts = list(zip(*columns, strict=True))
    sources = [*map(int, drawn.permutation(own)[: near + exact])]
    found = []
    for source in sources[:near]:
        made = [variant(text, similarity, chance) for text in texts[source]]
        texts.append(tuple(text for text, _ in made))
        found.append(min(share for _, share in made))
    texts += [texts[source] for source in sources[near:]]
    pairs = list(zip(sources, range(own, rows), strict=True))
    place = drawn.permutation(rows)
    order = np.argsort(place)
    dirty = set(drawn.permutation(own)[:noisy].tolist()) - set(sources)
    with path.open("w", encoding="utf-8") as file:
        for row in order.tolist():
            prompt, completion = texts[row]
            if row in dirty:
                prompt, completion = f"<p>{prompt}</p>", f"{completion}  \u200b <br>\r\n"
            file.write(json.dumps({"prompt": prompt, "completion": completion}) + "\n")
    moved = [(int(place[source]), int(place[copy])) for source, copy in pairs]
    return Planted(rows=rows, near=moved[:near], exact=moved[near:], similarity=found)


def sentences(corpus: Sequence[str], count: int, words: int, drawn: np.random.Generator) -> list[str]:
    """Return texts of about this many words."""
    names, tokens = np.unique(np.array(" ".join(corpus).split()), return_inverse=True)
    order = np.argsort(tokens, kind="stable")
    first = np.searchsorted(tokens[order], np.arange(len(names) + 1))
    lengths = drawn.integers(words * 2 // 3, words * 4 // 3 + 1, count)
    table = np.empty((count, int(lengths.max())), np.int64)
    table[:, 0] = tokens[drawn.integers(0, len(tokens), count)]
    for place in range(1, table.shape[1]):
        low, high = first[table[:, place - 1]], first[table[:, place - 1] + 1]
        table[:, place] = tokens[(order[drawn.integers(low, high)] + 1) % len(tokens)]
    listed = names.tolist()
    return [
        " ".join([listed[word] for word in row[:length]])
        for row, length in zip(table.tolist(), lengths.tolist(), strict=True)
    ]


def variant(text: str, similarity: float, chance: random.Random) -> tuple[str, float]:
    """Replace one run of letters by others; return the text and its Jaccard similarity, at or just above the goal."""
    own = shingles(text)
    changed = max(int(len(own) * (1 - similarity) / (1 + similarity)) - SIZE + 2, 1)
    for length in range(changed, 0, -1):
        start = chance.randrange(SIZE, max(len(text) - length - SIZE, SIZE + 1))
        other = text[:start] + "".join(chance.choices(string.ascii_lowercase, k=length)) + text[start + length :]
        share = jaccard(own, shingles(other))
        if share >= similarity:
            return other, share
    return text, 1.0


def shingles(text: str) -> frozenset[str]:
    """Return the runs of five characters of a text without case, with single spaces."""
    text = " ".join(text.lower().split())
    return frozenset(text[place : place + SIZE] for place in range(max(len(text) - SIZE + 1, 1)))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)


def texts_of(files: Iterable[Path]) -> list[str]:
    """Return the values of `text` of JSONL files."""
    return [json.loads(line)["text"] for file in files for line in file.read_text("utf-8").split("\n") if line]
