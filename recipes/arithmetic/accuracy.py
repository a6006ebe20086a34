"""Prints the accuracy of both policies on held-out sums, and the paired difference, with 95 % intervals.

    python -m recipes.arithmetic.accuracy runs/arithmetic

The folder is that of the pipeline. Intervals are by bootstrap over prompts.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from alignment.evaluate.statistics import mean_interval, share_interval
from alignment.json_lines import read_ours
from recipes.arithmetic.check import right


def main(argv: list[str] | None = None) -> None:
    """Print one line for each run."""
    parser = argparse.ArgumentParser(prog="python -m recipes.arithmetic.accuracy", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    for run in parser.parse_args(argv).runs:
        print(line(str(run), read_ours(run / "evaluate" / "answers.jsonl")))  # noqa: T201


def line(name: str, rows: list[dict[str, Any]]) -> str:
    """Return the accuracies and their difference, from the answers of both policies to each prompt."""
    prompts = [json.dumps(row["prompt"]) for row in rows]
    before, after = ([right(row["prompt"], row["answers"][each]) for row in rows] for each in ("sft", "grpo"))
    gain = mean_interval([b - a for a, b in zip(before, after, strict=True)], prompts)
    cells = [name, *(_percent(share_interval(each, prompts)) for each in (before, after)), _percent(gain)]
    return f"| {' | '.join(cells)} |"


def _percent(interval: Any) -> str:
    return f"{100 * interval.value:.1f} % [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


if __name__ == "__main__":
    main(sys.argv[1:])
