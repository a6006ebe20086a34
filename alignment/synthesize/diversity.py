"""How varied written rows are, and how near to their seeds."""

import random
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from alignment.evaluate.metrics import variety
from alignment.synthesize.bleu import self_bleu
from alignment.synthesize.rouge import RougeIndex, words
from alignment.synthesize.rows import Row, Seed

BINS = 10  # of the distributions of ROUGE-L, each 0.1 wide
QUANTILES = {"p5": 0.05, "p50": 0.5, "p95": 0.95}
COMPARED = 2000  # the most instructions that are compared with all others, as this takes their number squared
SHOWN_OPENINGS = 20


def measured(rows: Sequence[Row], seeds: Sequence[Seed]) -> dict[str, Any]:
    """Return the diversity of rows for the manifest; equal instructions count once, and answers each.

    `distinct` are distinct-1 and -2 (https://arxiv.org/abs/1510.03055). `nearest_seed` is the distribution of each
    instruction's ROUGE-L to its most similar seed, figure 4 of https://arxiv.org/abs/2212.10560, and `nearest_other`
    that to its most similar other instruction. `self_bleu` is in `bleu.py`. Tokens are words of any script.
    """
    prompts, answers = zip(*map(parts_of, rows), strict=True)
    instructions = list(dict.fromkeys(prompts))
    found: dict[str, Any] = {
        "instructions": len(instructions),
        "distinct": {"instructions": variety(instructions), "answers": variety(list(answers))},
        "words": {"instructions": spread(instructions), "answers": spread(answers)},
        "self_bleu": {"instructions": own_bleu(instructions), "answers": own_bleu(answers)},
        "openings": openings(instructions),
        "nearest_other": distribution(to_others(instructions)),
    }
    if seeds:
        index = RougeIndex(any_script=True)
        for seed in seeds:
            index.add(seed.text)
        found["nearest_seed"] = distribution([index.nearest(text)[0] for text in instructions])
    return found


def parts_of(row: Row) -> tuple[str, str]:
    """Return the instruction, or the user's last message, and the answer of a row."""
    if "instruction" in row:
        return row["instruction"], row["output"]
    if "messages" in row:
        *before, answer = row["messages"]
        return next((one["content"] for one in reversed(before) if one["role"] == "user"), ""), answer["content"]
    return row["prompt"], row["completion"]


def spread(texts: Sequence[str]) -> dict[str, float]:
    """Return mean and quantiles of the number of words."""
    counts = [len(words(text, any_script=True)) for text in texts]
    return {"mean": round(statistics.fmean(counts), 2), **_quantiles(counts)}


def own_bleu(texts: Sequence[str]) -> float | None:
    """Return the Self-BLEU of texts: the mean BLEU-4 of each to all others, 0 to 1; None for fewer than two."""
    found = self_bleu([words(text, any_script=True) for text in texts])
    return None if found is None else round(found, 4)


def openings(texts: Sequence[str]) -> dict[str, int]:
    """Return the most frequent first words: the verb of most instructions."""
    first = Counter(found[0] for text in texts if (found := words(text, any_script=True)))
    return dict(first.most_common(SHOWN_OPENINGS))


def to_others(texts: Sequence[str]) -> list[float]:
    """Return the ROUGE-L of each text to the most similar other one; of at most `COMPARED`, drawn at random."""
    drawn = list(texts) if len(texts) <= COMPARED else random.Random(0).sample(list(texts), COMPARED)
    index = RougeIndex(any_script=True)
    for text in drawn:
        index.add(text)
    return [index.nearest(text, without=place)[0] for place, text in enumerate(drawn)] if len(drawn) > 1 else []


def distribution(values: Sequence[float]) -> dict[str, Any]:
    """Return mean, quantiles and a histogram over [0, 1] of ROUGE-L; 1 counts in the last bin."""
    histogram = [0] * BINS
    for value in values:
        histogram[min(BINS - 1, int(value * BINS))] += 1
    if not values:
        return {"histogram": histogram}
    return {"mean": round(statistics.fmean(values), 4), **_quantiles(values), "histogram": histogram}


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {name: round(ordered[int(share * (len(ordered) - 1))], 4) for name, share in QUANTILES.items()}
