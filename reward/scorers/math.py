"""The scorer `math`: 1 if an answer's final answer equals the reference in a column of its row, else 0."""

from alignment.calls.session import JudgeCalls
from alignment.config.schema import PolicyGradientRecipe
from alignment.config.schema.scorers import MathEntry
from reward.scorers.rows import Columns, RowScorer
from reward.verifiers.math import is_correct, parse_reference


def build(entry: MathEntry, recipe: PolicyGradientRecipe, calls: JudgeCalls | None) -> RowScorer:
    """Return the scorer of a recipe."""

    def check(answer: str, row: Columns) -> float:
        return float(is_correct(answer, str(row[entry.column])))

    return RowScorer(
        check,
        kind="math",
        timeout_seconds=entry.timeout_seconds,
        reads=[entry.column],
        require=lambda row: parse_reference(str(row[entry.column])),
        identity={"column": entry.column},
    )
