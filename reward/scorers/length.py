"""The scorer `length`: 1 if the length of an answer is in a range, falling to 0 outside."""

from alignment.calls.session import JudgeCalls
from alignment.config.schema import PolicyGradientRecipe
from alignment.config.schema.scorers import LengthEntry
from alignment.train.policy_gradient.experience import Columns
from reward.scorers.rows import RowScorer
from reward.verifiers.length import measure, within


def build(entry: LengthEntry, recipe: PolicyGradientRecipe, calls: JudgeCalls | None) -> RowScorer:
    """Return the scorer of a recipe."""

    def check(answer: str, row: Columns) -> float:
        return within(measure(answer, entry.unit), entry.minimum, entry.maximum, entry.margin)

    identity = entry.model_dump(include={"unit", "minimum", "maximum", "margin"})
    return RowScorer(check, kind="length", timeout_seconds=entry.timeout_seconds, identity=identity)
