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


def forgetting_table(results: dict[str, Any]) -> Table:
    """Return what each candidate forgot, by data set: ratios of perplexities and differences of scores."""
    shown = Table(title=f"Outside the domain, against {escape(results['baseline'])}")
    for title in ("data", "policy"):
        shown.add_column(title, style="bold")
    for title in ("perplexity", "ratio", "score", "difference"):
        shown.add_column(title, justify="right")
    shown.add_column("")
    for name, found in results["details"]["forgetting"].items():
        for data, one in found["data"].items():
            cells = [
                _number(one["perplexity"]) if "perplexity" in one else "",
                _interval(one.get("perplexity_ratio")),
                _number(one["score"]) if "score" in one else "",
                _interval(one.get("score_difference")),
            ]
            shown.add_row(escape(data), escape(name), *cells, "forgotten" if one["forgotten"] else "")
    return shown


def _interval(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    ends = "" if found["low"] is None else f" [{found['low']:.3g}, {found['high']:.3g}]"
    return f"{_number(found)}{ends}"


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
