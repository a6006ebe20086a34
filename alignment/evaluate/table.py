"""An evaluation's results as a table for the terminal. Imports no torch."""

from typing import Any

from rich.markup import escape
from rich.table import Table


def table(results: dict[str, Any]) -> Table:
    """Return the results as a table for the terminal."""
    details = results["details"]
    several = "s" if results["prompts"] != 1 else ""
    shown = Table(title=f"Against {escape(results['baseline'])} on {results['prompts']} held-out prompt{several}")
    shown.add_column("policy", style="bold")
    for judge in results["judges"]:
        shown.add_column(f"win rate\n{escape(judge)}", justify="right")
    columns = {
        "reward_score": "reward\nscore",
        "kl": "KL\nnats",
        "answer_tokens": "tokens",
        "distinct_answers": "distinct",
        "perplexity": "perplexity\noutside",
        "forgetting": "forgetting\nratio",
    }
    columns = {key: title for key, title in columns.items() if details.get(key)}
    for title in columns.values():
        shown.add_column(title, justify="right")
    for name in [results["baseline"], *results["candidates"]]:
        rates = [results["win_rate"].get(name, {}).get(judge) for judge in results["judges"]]
        cells = [_rate(rate) for rate in rates] + [_number(details[key].get(name)) for key in columns]
        shown.add_row(escape(name), *cells)
    return shown


def _rate(rate: dict[str, Any] | None) -> str:
    if rate is None:
        return "–"
    if rate["value"] is None:
        return "no verdict"
    interval = f"[{rate['low']:.1%}, {rate['high']:.1%}]"
    covered = "" if rate["coverage"] == 1 else f"\n{rate['coverage']:.0%} judged"
    return f"{rate['value']:.1%} {interval}{covered}"


def _number(found: dict[str, Any] | None) -> str:
    return "–" if found is None or found["value"] is None else f"{found['value']:.3g}"
