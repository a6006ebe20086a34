"""Scores on tasks as a table for the terminal. Imports no torch."""

from collections.abc import Iterator
from typing import Any

from rich.markup import escape
from rich.table import Table

NOTHING = {"value": None}  # of the baseline


def task_table(results: dict[str, Any]) -> Table:
    """Return each task's scores, and the candidates' differences from the baseline, as a table for the terminal."""
    baseline, level = results["baseline"], results["confidence_level"]
    shown = Table(title=f"Tasks of lm-eval; differences from {escape(baseline)} are paired, with {level:.0%} intervals")
    for title in ("task", "metric", "policy"):
        shown.add_column(title, style="bold" if title == "task" else None, no_wrap=title == "metric")
    for title in ("documents", "score", "difference"):
        shown.add_column(title, justify="right")
    before = None
    for task, metric, numbers in task_lines(results["tasks"]):
        if before is not None and before != task:
            shown.add_section()
        for place, (policy, found) in enumerate(numbers["policies"].items()):
            first = place == 0
            named = ["" if before == task or not first else escape(task), escape(metric) if first else ""]
            difference = _difference(numbers["differences"].get(policy, NOTHING))
            shown.add_row(*named, escape(policy), f"{found['n']:,}" if first else "", _score(found), difference)
        before = task
    return shown


def task_lines(tasks: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield name, metric and numbers of each group, and of each task that is in none.

    Args:
        tasks: from results.json; what is not as `compare_tasks` returns it is left out.
    """
    for label, entry in _mappings(tasks):
        groups, leaves = dict(_mappings(entry.get("groups"))), dict(_mappings(entry.get("tasks")))
        named = [group.get("tasks") for group in groups.values()]
        inner = {str(name) for names in named if isinstance(names, list) for name in names}
        alone = {name: one for name, one in leaves.items() if name not in inner}
        for name, one in {**groups, **alone}.items():
            for metric, numbers in _mappings(one.get("metrics")):
                yield label if name == entry.get("task") else name, metric, numbers


def _mappings(value: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the entries of a mapping that are mappings."""
    entries = value.items() if isinstance(value, dict) else ()
    return ((str(name), one) for name, one in entries if isinstance(one, dict))


def _score(found: dict[str, Any]) -> str:
    return "–" if found["value"] is None else f"{found['value']:.3f}{_ends(found)}"


def _difference(found: dict[str, Any]) -> str:
    return "" if found["value"] is None else f"{found['value']:+.3f}{_ends(found, '+')}"


def _ends(found: dict[str, Any], sign: str = "") -> str:
    if found["low"] is None:
        return ""
    return f" [{found['low']:{sign}.3f}, {found['high']:{sign}.3f}]"
