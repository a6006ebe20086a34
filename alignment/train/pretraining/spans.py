"""T5's span corruption (Raffel et al. 2020, section 3.1.4, https://arxiv.org/abs/1910.10683), as its code has it."""

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def counts(length: int, density: float, mean: float) -> tuple[int, int]:
    """Return how many tokens of a text are noise, and in how many spans."""
    noise = min(max(round(length * density), 1), length - 1)
    return noise, min(max(round(noise / mean), 1), length - noise)


def noise_mask(length: int, density: float, mean: float, numbers: np.random.Generator) -> Mask:
    """Return which tokens are noise, (length,): `random_spans_noise_mask` of T5's preprocessors.

    Noise and the rest are each cut into as many spans, of random lengths, which alternate; the first is no noise.

    Args:
        length: tokens, from 2 on. density: share that is noise. mean: tokens of a span, on average.
    """
    noise, spans = counts(length, density, mean)
    lengths = np.stack([_segments(length - noise, spans, numbers), _segments(noise, spans, numbers)], axis=1)
    return np.repeat(np.tile([False, True], spans), lengths.reshape(-1))


def _segments(items: int, count: int, numbers: np.random.Generator) -> NDArray[np.int64]:
    """Cut items into `count` segments of at least one, each cut equally likely."""
    cuts = np.sort(numbers.permutation(items - 1)[: count - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [items]]))


def corrupted(ids: list[int], noise: Mask, sentinels: list[int]) -> tuple[list[int], list[int]]:
    """Return a text with a sentinel for each span of noise, and the noise with a sentinel for each span of the rest.

    A text that begins with noise has its first sentinel in front of it in both.
    """
    return _replaced(ids, noise, sentinels), _target(ids, noise, sentinels)


def _replaced(ids: list[int], gone: Mask, sentinels: list[int]) -> list[int]:
    found, used = [], 0
    for place, token in enumerate(ids):
        if not gone[place]:
            found.append(token)
        elif place == 0 or not gone[place - 1]:
            found.append(sentinels[used])
            used += 1
    return found


def _target(ids: list[int], noise: Mask, sentinels: list[int]) -> list[int]:
    found, used = [], 0
    for place, token in enumerate(ids):
        if noise[place]:
            if place == 0 or not noise[place - 1]:
                found.append(sentinels[used])
                used += 1
            found.append(token)
    if not noise[-1]:
        found.append(sentinels[used])  # ends the last span, as in the paper's figure 2
    return found


def longest_text(limit: int, density: float, mean: float, sentinels: int) -> int:
    """Return the most tokens of a text whose input and target have at most `limit` tokens; below 2 if there is none."""
    length = 2
    while True:
        noise, spans = counts(length, density, mean)
        if max(length - noise + spans, noise + spans + 1) > limit or spans + 1 > sentinels:
            return length - 1
        length += 1
