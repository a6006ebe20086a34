"""Tables of a benchmark's numbers for the terminal. Imports no torch."""

from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from alignment.errors import printable


def tables(results: dict[str, Any]) -> Group:
    """Return the table of subsets, one for each published benchmark, and one of best-of-n where gold scores are."""
    shown = [_accuracy(results), *(_sections(name, found) for name, found in results["benchmarks"].items())]
    for name, curve in results["best_of_n"].items():
        shown.append(_curve(name, curve))
    return Group(*shown)


def _accuracy(results: dict[str, Any]) -> Table:
    models = results["models"]
    many = f"{results['aggregate']} of {len(models)} models" if len(models) > 1 else models[0]
    with_best = any(found["best"] for found in results["subsets"].values())
    table = Table(title=f"{_plain(many)}: does it order answers as their labels do?")
    table.add_column("subset", style="bold")
    titles = ["prompts", "pairs", "accuracy [95 %]", "longer\nwins", "ties in\nlabels", "equal\nscores", "nll", "ECE"]
    for title in [*titles, *(["best of all"] if with_best else [])]:
        table.add_column(title, justify="right")
    for name, found in results["subsets"].items():
        table.add_row(_plain(name), *_cells(found, with_best))
    if len(results["subsets"]) > 1:
        table.add_section()
        table.add_row("all pairs", *_cells(results["all"], with_best))
        table.add_row("mean of subsets", "", "", _percent(results["mean_of_subsets"]))
    return table


def _cells(found: dict[str, Any], with_best: bool) -> list[str]:
    cells = [f"{found['prompts']:,}", f"{found['pairs']:,}", _interval(found["accuracy"]), _percent(found["of_longer"])]
    cells += [f"{found['label_ties']:,}", f"{found['equal_scores']:,}", _number(found["nll"]), _percent(found["ece"])]
    return [*cells, *([_interval(found["best"])] if with_best else [])]


def _sections(name: str, found: dict[str, Any]) -> Table:
    table = Table(title=f"{name}, scored as its authors do")
    for title in ("section", "weight", "prompts", "score [95 %]"):
        table.add_column(title, justify="left" if title == "section" else "right")
    for section, scores in found["sections"].items():
        missing = scores.get("missing")
        note = f" (without {', '.join(missing)})" if missing else ""
        table.add_row(f"{section}{note}", f"{scores['weight']:g}", f"{scores['clusters']:,}", _interval(scores))
    table.add_section()
    note = f" (without {', '.join(found['missing'])})" if found["missing"] else ""
    table.add_row(f"weighted mean{note}", "", "", _interval(found["score"]))
    return table


def _curve(name: str, curve: list[dict[str, Any]]) -> Table:
    table = Table(title=f"Best of n on {_plain(name)}, {curve[0]['prompts']:,} prompts: gold score of the answer taken")
    for title in ("n", "KL\nnats", "by this model [95 %]", "by length", "by gold", "its own\nscore"):
        table.add_column(title, justify="right")
    for point in curve:
        gold = point["gold"]
        ends = "" if gold["low"] is None else f" [{gold['low']:.3g}, {gold['high']:.3g}]"
        others = [_number(point[key]) for key in ("gold_of_longest", "gold_of_best", "score")]
        table.add_row(str(point["n"]), f"{point['kl']:.2f}", f"{gold['value']:.3g}{ends}", *others)
    return table


def _plain(name: str) -> str:
    """Return a name from data on one line, with brackets and control characters escaped."""
    return escape(printable(name))


def _interval(found: dict[str, Any] | None) -> str:
    if found is None or found["value"] is None:
        return "–"
    ends = "" if found["low"] is None else f" [{found['low']:.1%}, {found['high']:.1%}]"
    return f"{found['value']:.1%}{ends}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
