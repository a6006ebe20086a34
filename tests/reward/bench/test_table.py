"""Names that stand in data are printed as they are."""

import io

from rich.console import Console

from reward.bench.table import tables

NUMBERS = {
    "prompts": 1, "pairs": 1, "accuracy": None, "of_longer": None, "label_ties": 0, "equal_scores": 0, "nll": None,
    "ece": None, "best": None,
}  # fmt: skip
POINT = {
    "n": 1, "kl": 0.0, "prompts": 1, "gold": {"value": 1.0, "low": None, "high": None}, "score": 1.0,
    "gold_of_longest": 1.0, "gold_of_best": 1.0,
}  # fmt: skip


def test_brackets_and_control_characters_in_names_are_not_markup():
    names = ["[/b]", "[red]x", "a\u2028b\x1b[31m"]
    results = {
        "models": ["runs/[/x]"], "aggregate": "mean", "subsets": dict.fromkeys(names, NUMBERS), "all": NUMBERS,
        "mean_of_subsets": None, "benchmarks": {}, "best_of_n": {name: [POINT] for name in names},
    }  # fmt: skip
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(tables(results))
    said = console.export_text()
    for shown in ("[/b]", "[red]x", "a\\u2028b\\x1b[31m", "runs/[/x]"):
        assert shown in said
