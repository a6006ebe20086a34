r"""Times the novelty filter of Self-Instruct against the package rouge-score.

    python -m benchmarks.novelty --seeds ../shared/data/self-instruct/seed_tasks.jsonl --sizes 1000 10000 50000

Instructions are the words of random seeds in random order. Each row times 200 more against the given number.
"""

import argparse
import random
import time
from pathlib import Path

from alignment.json_lines import read_ours
from alignment.run.script import parsed, script
from alignment.synthesize.rouge import RougeIndex

LIMIT = 0.7
TIMED, TIMED_SLOWLY, COMPARED_SLOWLY = 200, 5, 1000


def main(argv: list[str] | None = None) -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.novelty", description=__doc__)
    parser.add_argument("--seeds", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 50_000])
    given = parsed(parser, argv)
    seeds = [row["instruction"] for row in read_ours(given.seeds)]
    rng = random.Random(0)
    slow = _rouge_score(seeds, rng)
    print("| instructions | one more | one more, rouge-score | all, one by one | all, rouge-score |")
    print("|---|---|---|---|---|")
    for size in given.sizes:
        index = RougeIndex()
        for _ in range(size):
            index.add(_mixed(seeds, rng))
        new = [_mixed(seeds, rng) for _ in range(TIMED)]
        start = time.perf_counter()
        for text in new:
            index.reaches(text, LIMIT)
        one = (time.perf_counter() - start) / TIMED
        whole = [seconds * size / 2 for seconds in (one, slow * size)]
        cells = [f"{1000 * one:.2f} ms", f"{slow * size:.2f} s", *map(_duration, whole)]
        print(f"| {size:,} | {' | '.join(cells)} |")


def _mixed(seeds: list[str], rng: random.Random) -> str:
    words = rng.choice(seeds).split()
    rng.shuffle(words)
    return " ".join(words)


def _rouge_score(seeds: list[str], rng: random.Random) -> float:
    """Return the seconds of a comparison by the package."""
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    known = [_mixed(seeds, rng) for _ in range(COMPARED_SLOWLY)]
    start = time.perf_counter()
    for text in [_mixed(seeds, rng) for _ in range(TIMED_SLOWLY)]:
        for other in known:
            scorer.score(text, other)
    return (time.perf_counter() - start) / (TIMED_SLOWLY * COMPARED_SLOWLY)


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.1f} s"
        if seconds < 120
        else f"{seconds / 60:.1f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


if __name__ == "__main__":
    script(main)
