"""The scorer `ifeval`: how many of a row's instructions an answer follows."""

from alignment.calls.session import JudgeCalls
from alignment.config.schema import PolicyGradientRecipe
from alignment.config.schema.scorers import IFEvalEntry
from alignment.train.policy_gradient.experience import Columns
from reward.scorers.rows import RowScorer
from reward.verifiers.ifeval import check, instructions


def build(entry: IFEvalEntry, recipe: PolicyGradientRecipe, calls: JudgeCalls | None) -> RowScorer:
    """Return the scorer of a recipe."""

    def score(answer: str, row: Columns) -> float:
        followed = check(answer, row["instruction_id_list"], row["kwargs"])
        return float(all(followed)) if entry.score == "all" else sum(followed) / len(followed)

    return RowScorer(
        score,
        kind="ifeval",
        timeout_seconds=entry.timeout_seconds,
        reads=[*entry.columns_read],
        require=lambda row: instructions(row["instruction_id_list"], row["kwargs"]),
        identity={"score": entry.score},
    )
