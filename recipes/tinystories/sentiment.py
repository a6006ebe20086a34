"""How cheerful every policy's held-out answers are, by both judges.

    python -m recipes.tinystories.sentiment runs/tinystories/evaluate

Reads the evaluation's answers.jsonl and prints a Markdown table; intervals resample prompts, as evaluation's do.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignment.errors import DataError
from alignment.evaluate.statistics import Interval, mean_interval
from alignment.run.files import read_jsonl
from alignment.run.script import parsed, script
from recipes.tinystories import judge, watcher

MEASURES: dict[str, Callable[[str], float]] = {
    "VADER compound": judge.compound,
    "watcher's probability": watcher.probability,
}


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(prog="python -m recipes.tinystories.sentiment", description=__doc__)
    parser.add_argument("run", type=Path, help="the output_dir of an evaluation")
    print(markdown(sentiment(read_answers(parsed(parser, argv).run))))  # noqa: T201


def read_answers(run: Path) -> list[dict[str, Any]]:
    """Return the evaluation's rows.

    Raises: DataError if there are none.
    """
    file = run / "answers.jsonl"
    if not file.is_file():
        raise DataError(f"{file} does not exist; give the output_dir of a finished evaluation.")
    rows = read_jsonl(file)
    if not rows:
        raise DataError(f"{file} is empty; evaluate again.")
    return rows


def sentiment(rows: list[dict[str, Any]]) -> dict[str, dict[str, Interval]]:
    """Return each policy's mean by each measure."""
    prompts = [json.dumps(row["prompt"]) for row in rows]
    return {
        policy: {
            name: mean_interval([measure(row["answers"][policy]) for row in rows], prompts)
            for name, measure in MEASURES.items()
        }
        for policy in rows[0]["answers"]
    }


def markdown(found: dict[str, dict[str, Interval]]) -> str:
    """Write the table."""
    lines = ["| policy | " + " | ".join(MEASURES) + " |", "|---|" + "---|" * len(MEASURES)]
    for policy, by_measure in found.items():
        cells = (f"{each.value:.3f} [{each.low:.3f}, {each.high:.3f}]" for each in by_measure.values())
        lines.append(f"| {policy} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    script(main)
