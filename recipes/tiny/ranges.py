"""What several runs of this pipeline came to, as tables: `python -m recipes.tiny.ranges runs/tiny runs/tiny-seed-1`.

A processor adds numbers in an order of its own, and a run of this size is sensitive to it: another seed and another
processor move the results alike. So the README has ranges.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

POLICIES = ("sft", "dpo", "ppo")
Result = dict[str, Any]
Value = Callable[[Result, str], float | None]


def win_rate(judge: str) -> Value:
    """Return what reads a policy's share of wins by `judge`, in percent."""
    return lambda result, policy: (
        100 * result["win_rate"][policy][judge]["value"] if policy in result["win_rate"] else None
    )


ROWS: dict[str, tuple[Value, str]] = {
    "wins against SFT by gold": (win_rate("gold"), "%"),
    "wins against SFT by the judge that trained": (win_rate("careless reader"), "%"),
    "KL to SFT, nats an answer": (lambda result, policy: result["kl"].get(policy), ""),
    "tokens an answer": (lambda result, policy: result["answer_tokens"][policy], ""),
    "distinct answers": (lambda result, policy: 100 * result["distinct_answers"][policy], "%"),
}


def ranges(results: Sequence[Result]) -> list[str]:
    """Lowest and highest of every number, as the lines of a Markdown table."""
    lines = ["| | SFT | DPO | PPO |", "|---|---|---|---|"]
    for name, (value, unit) in ROWS.items():
        cells = [_range([value(result, policy) for result in results], unit) for policy in POLICIES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    accuracy = _range([100 * result["reward_accuracy"] for result in results], "%")
    seconds = _range([sum(result["seconds"].values()) for result in results], "", digits=0)
    return [*lines, "", f"The reward model orders {accuracy} of held-out pairs as gold does. Seconds: {seconds}."]


def single(name: str, result: Result) -> str:
    """One run as a line of a Markdown table, with its intervals."""
    cells = [f"`{name}`", f"{100 * result['reward_accuracy']:.1f} %"]
    for policy in ("dpo", "ppo"):
        gold = result["win_rate"][policy]["gold"]
        cells.append(f"{100 * gold['value']:.1f} % [{100 * gold['low']:.1f}, {100 * gold['high']:.1f}]")
    cells.append(" / ".join(f"{result['kl'][policy]:.1f}" for policy in ("dpo", "ppo")))
    cells.append(" / ".join(f"{100 * result['distinct_answers'][policy]:.0f} %" for policy in POLICIES))
    cells.append(" / ".join(f"{result['answer_tokens'][policy]:.0f}" for policy in POLICIES))
    cells.append(f"{sum(result['seconds'].values()):.0f}")
    return f"| {' | '.join(cells)} |"


def _range(numbers: Sequence[float | None], unit: str, digits: int = 1) -> str:
    known = [number for number in numbers if number is not None]
    if not known:
        return "–"
    low, high = (f"{number:.{digits}f}" for number in (min(known), max(known)))
    return (low if low == high else f"{low} to {high}") + (f" {unit}" if unit else "")


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m recipes.tiny.ranges", description=__doc__)
    parser.add_argument(
        "runs", nargs="+", type=Path, help="folders that `alignment run recipes/tiny/pipeline.yaml` left"
    )
    runs = parser.parse_args(argv).runs
    missing = [str(run) for run in runs if not (run / "results.json").is_file()]
    if missing:
        parser.error(f"no results.json in {', '.join(missing)}; run the pipeline to its end first")
    results = [json.loads((run / "results.json").read_text(encoding="utf-8")) for run in runs]
    rows = [single(str(run), result) for run, result in zip(runs, results, strict=True)]
    sys.stdout.write("\n".join([*ranges(results), "", *rows, ""]))


if __name__ == "__main__":
    main()
