"""Self-BLEU, https://arxiv.org/abs/1802.01886: the BLEU of each text with all others as its references.

BLEU-4 (https://aclanthology.org/P02-1040) with the counts and the smoothing of `nltk.translate.bleu_score`'s
`sentence_bleu` and `method1`, as in the paper's code (https://github.com/geek-ai/Texygen).
"""

import math
import statistics
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

ORDER = 4  # the longest n-gram
SMOOTHED = 0.1  # matches of n-grams that have none
Grams = Counter[tuple[str, ...]]


def self_bleu(texts: Sequence[Sequence[str]]) -> float | None:
    """Return the mean BLEU of texts to each other, 0 to 1: higher is less diverse; None for fewer than two.

    Args:
        texts: the tokens of each text.
    """
    if len(texts) < 2:
        return None
    counts = [[_grams(text, size) for text in texts] for size in range(1, ORDER + 1)]
    most = [_two_most(grams) for grams in counts]
    lengths = sorted(map(len, texts))
    found = []
    for place, text in enumerate(texts):
        precisions = [_precision(counts[size][place], most[size], place, len(text) - size) for size in range(ORDER)]
        found.append(_bleu(precisions, len(text), _closest(lengths, len(text))))
    return statistics.fmean(found)


def _grams(text: Sequence[str], size: int) -> Grams:
    return Counter(tuple(text[first : first + size]) for first in range(len(text) - size + 1))


def _two_most(texts: Sequence[Grams]) -> dict[tuple[str, ...], tuple[int, int, int]]:
    """Return of each n-gram the text with the most, its number there, and the most in any other text."""
    found: dict[tuple[str, ...], tuple[int, int, int]] = {}
    for place, grams in enumerate(texts):
        for gram, count in grams.items():
            owner, first, second = found.get(gram, (-1, 0, 0))
            found[gram] = (place, count, first) if count > first else (owner, first, max(second, count))
    return found


def _precision(
    grams: Grams, most: dict[tuple[str, ...], tuple[int, int, int]], place: int, total: int
) -> tuple[float, int]:
    """Return how many n-grams the others have as often, and how many there are, at least 1."""
    matches = 0
    for gram, count in grams.items():
        owner, first, second = most[gram]
        matches += min(count, second if owner == place else first)
    return matches, max(1, total)


def _bleu(precisions: Sequence[tuple[float, int]], length: int, reference: int) -> float:
    if not precisions[0][0]:
        return 0.0
    logs = [math.log((matches or SMOOTHED) / total) for matches, total in precisions]
    return math.exp(statistics.fmean(logs)) * (1.0 if length > reference else math.exp(1 - reference / length))


def _closest(lengths: Sequence[int], length: int) -> int:
    """Return the length of another text that is closest; of two, the shorter."""
    place = bisect_left(lengths, length)
    others = [*lengths[max(0, place - 1) : place], *lengths[place + 1 : place + 2]]
    return min(others, key=lambda other: (abs(other - length), other))
