"""Files of judgements as other projects write them, made from AlpacaEval's published numbers (Apache-2.0)."""

import csv
import json
import math
from functools import cache
from pathlib import Path
from typing import Any


@cache
def published() -> dict[str, Any]:
    return json.loads((Path(__file__).parent / "alpaca_eval.json").read_text())


def annotations(path: Path, model: str, **changes: Any) -> Path:
    """Write `annotations.json` with the published preferences, and answers of the published lengths."""
    numbers = published()
    rows = [
        {
            "instruction": f"instruction {i}",
            "output_1": "b" * base,
            "generator_1": numbers["baseline"],
            "dataset": "all",
            "output_2": "m" * length,
            "generator_2": model,
            "annotator": "weighted_alpaca_eval_gpt4_turbo",
            "preference": preference,
            "time_per_example": 1.5,
            **changes,
        }
        for i, (preference, length, base) in enumerate(
            zip(numbers[model]["preference"], numbers[model]["length"], numbers["baseline_length"], strict=True)
        )
    ]
    path.write_text(json.dumps(rows))
    return path


def gamed(path: Path, rows: int = 805) -> Path:
    """Write a file with the columns of AlpacaEval's `df_gamed.csv`, and numbers of our own."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["model", "index", "preference", "std_delta_len", "instruction_difficulty", "not_gamed_baseline"]
        )
        for name, side in (("concise", 1.0), ("verbose", -1.0)):
            for i in range(rows):
                length, difficulty = side + 0.7 * math.sin(3 * i), 1.5 * math.sin(1 + i)
                logit = 0.8 * difficulty - 1.6 * math.tanh(length) + 2 * math.sin(7 * i * i)
                writer.writerow([name, i, 1 / (1 + math.exp(-logit)), length, difficulty, False])
    return path
