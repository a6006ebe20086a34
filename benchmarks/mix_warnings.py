"""How often `alignment mix` warns of labellers that err independently, and of common errors, in simulated labels.

python -m benchmarks.mix_warnings [--runs 1000]
"""

import argparse
from collections.abc import Sequence

import numpy as np

from reward.people.anchors import warnings_of
from reward.people.dawid_skene import FIRST, SECOND, Labels, estimate
from reward.people.mixing import Table

SMOOTHING = 10.0  # the default of `mix`
HONEST = ((0.7, 0.9, 0.9, 0.9), (0.7, 0.7, 0.7), (0.65, 0.7, 0.75, 0.8), (0.6, 0.9, 0.9), (0.6,) * 3, (0.6,) * 5)
SIZES = ((30, 0), (100, 0), (300, 0), (30, 30), (100, 30), (300, 300))  # pairs, and those of them with gold
SHARES = (0.81, 0.55)  # of the pairs on which three of four judges err together


def table_of(verdicts: Sequence[np.ndarray], truth: np.ndarray, gold: int) -> Table:
    """Return labels of all pairs by each labeller; True is the first answer."""
    pairs, count = len(truth), len(verdicts)
    said = np.concatenate(verdicts)
    outcomes = np.zeros((pairs * count, 3))
    outcomes[np.arange(len(said)), np.where(said, FIRST, SECOND)] = 1.0
    known = None
    if gold:
        known = np.where(np.arange(pairs) < gold, np.where(truth, FIRST, SECOND), -1)
    labels = Labels(np.tile(np.arange(pairs), count), np.repeat(np.arange(count), pairs), outcomes, pairs, count, known)
    names = [f"judge {number}" for number in range(count)]
    return Table(labels, names, [(place, (0, 1)) for place in range(pairs)])


def honest(draw: np.random.Generator, pairs: int, accuracies: Sequence[float]) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the verdicts of labellers that err independently, and the truth."""
    truth = draw.random(pairs) < 0.5
    return [np.where(draw.random(pairs) < right, truth, ~truth) for right in accuracies], truth


def together(draw: np.random.Generator, pairs: int, share: float) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the verdicts of three labellers that err on the same pairs and of one that is right in 90 %."""
    truth, hard = draw.random(pairs) < 0.5, draw.random(pairs) < share
    verdicts = [np.where(hard ^ (draw.random(pairs) < 0.03), ~truth, truth) for _ in range(3)]
    return [*verdicts, np.where(draw.random(pairs) < 0.9, truth, ~truth)], truth


def warned(verdicts: Sequence[np.ndarray], truth: np.ndarray, gold: int) -> int:
    """Return how many labellers `mix` warns of."""
    table = table_of(verdicts, truth, gold)
    found = estimate(table.labels, smoothing=SMOOTHING)
    alone = estimate(table_of(verdicts, truth, 0).labels, smoothing=SMOOTHING) if gold else None
    return len(warnings_of(table, found, alone, smoothing=SMOOTHING))


def line(name: str, words: Sequence[str]) -> None:
    """Print a row of the table."""
    print(f"{name:<24}" + "".join(f"{word:>16}" for word in words))


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    print(f"{runs} runs; independent errors: share of labellers that are warned of")
    line("accuracies", [f"{pairs}, {gold} gold" if gold else f"{pairs} pairs" for pairs, gold in SIZES])
    for accuracies in HONEST:
        shares = []
        for pairs, gold in SIZES:
            draw = np.random.default_rng(0)
            count = sum(warned(*honest(draw, pairs, accuracies), gold) for _ in range(runs))
            shares.append(f"{100 * count / runs / len(accuracies):.2f} %")
        line(" ".join(map(str, accuracies)), shares)
    print("three of four erring together: share of runs with a warning")
    for share in SHARES:
        shares = []
        for pairs, gold in SIZES:
            draw = np.random.default_rng(0)
            count = sum(warned(*together(draw, pairs, share), gold) > 0 for _ in range(runs))
            shares.append(f"{100 * count / runs:.0f} %")
        line(f"on {100 * share:.0f} % of the pairs", shares)


if __name__ == "__main__":
    main()
