"""What the last model of every method came to over the seeds of the frontier, as a Markdown table."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

METHODS = {
    "dpo": "DPO",
    "kto": "KTO",
    "orpo": "ORPO",
    "simpo": "SimPO",
    "cpo": "CPO",
    "ppo": "PPO",
    "grpo": "GRPO",
    "rloo": "RLOO",
    "reinforce_plus_plus": "REINFORCE++",
}
Result = dict[str, Any]


def wins(judge: str) -> Callable[[Result, str], float]:
    """Return what reads a method's share of wins against SFT by `judge`, in percent."""
    return lambda result, method: 100 * result["win_rate"][method][judge]["value"]


COLUMNS: dict[str, tuple[Callable[[Result, str], float], int]] = {  # with digits after the point
    "wins against SFT, VADER, %": (wins("VADER"), 1),
    "wins against SFT, watching judge, %": (wins("reviews classifier"), 1),
    "KL, nats": (lambda result, method: result["kl"][method], 1),
    "tokens": (lambda result, method: result["answer_tokens"][method], 0),
    "distinct-2": (lambda result, method: result["details"]["distinct_answers"][method]["distinct_2"], 2),
}


def table(results: Sequence[Result]) -> str:
    """Write each method's figures with the lowest and highest over seeds.

    Args:
        results: `results.json` of the pipeline's stage `methods`, one for each seed.
    """
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    for method, name in METHODS.items():
        cells = [_span([value(result, method) for result in results], digits) for value, digits in COLUMNS.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def read(run: Path) -> Result:
    """Return the results of one seed's stage `methods`."""
    found: Result = json.loads((run / "methods" / "results.json").read_text(encoding="utf-8"))
    return found


def _span(values: Sequence[float], digits: int) -> str:
    low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"
