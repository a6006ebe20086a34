"""The scorer `math`: 1 if an answer's final answer equals the reference in a column of its row, else 0."""

import re

from alignment.calls.session import JudgeCalls
from alignment.config.schema import PolicyGradientRecipe
from alignment.config.schema.scorers import MathEntry
from alignment.errors import ScorerError
from alignment.strict_json import shown
from alignment.train.policy_gradient.experience import Columns
from reward.scorers.rows import RowScorer
from reward.verifiers.math import is_correct, parse_reference

_TIME = re.compile(r"\d+(:\d+)+")


def build(entry: MathEntry, recipe: PolicyGradientRecipe, calls: JudgeCalls | None) -> RowScorer:
    """Return the scorer of a recipe."""

    def check(answer: str, row: Columns) -> float:
        return float(is_correct(answer, _reference(row[entry.column])))

    return RowScorer(
        check,
        kind="math",
        timeout_seconds=entry.timeout_seconds,
        reads=[entry.column],
        require=lambda row: parse_reference(_reference(row[entry.column])),
        identity={"column": entry.column},
    )


def _reference(value: object) -> str:
    """Return a row's reference as text.

    Raises: ScorerError if it is neither text nor a number, or a time such as 12:30, which would be read as a ratio.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float) or _TIME.fullmatch(str(value).strip()):
        raise ScorerError(f"math reference {shown(value)} is neither a number nor text with a final answer.")
    return str(value)
