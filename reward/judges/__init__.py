"""Judges: one file per backend, one per way of asking, behind `alignment.evaluate.judging.Judge`."""

from typing import Any

from alignment.calls.caller import Caller
from alignment.config.schema.judges import JudgeEntry
from alignment.evaluate.judging import Judge


def build_judge(entry: JudgeEntry, caller: Caller | None = None) -> Judge[Any]:
    """Return the judge that a recipe names.

    Args:
        caller: makes the judge's calls; None: one that keeps nothing and retries as the entry says.

    Returns: a judge whose `asks` says which kind of question it answers.

    Raises: JudgeError where its function, files or API key cannot be had; ModelError where its model cannot.
    """
    caller = caller or Caller(max_retries=entry.max_retries)
    if entry.kind == "rules":
        from reward.judges.rules import RulesJudge

        return RulesJudge.from_entry(entry, caller)
    if entry.kind == "replay":
        from reward.judges.replay import ReplayJudge

        return ReplayJudge.from_entry(entry, caller)
    if entry.kind == "reward_model":
        from reward.judges.reward_model import RewardModelJudge

        return RewardModelJudge.from_entry(entry, caller)
    if entry.kind == "jury":
        from reward.judges.jury import Jury

        return Jury(entry, [build_judge(member, caller) for member in entry.members])
    if entry.asks == "listwise":
        from reward.judges.listwise import ListwiseJudge

        return ListwiseJudge.from_entry(entry, caller)
    if entry.asks == "pointwise":
        from reward.judges.pointwise import PointwiseJudge

        return PointwiseJudge.from_entry(entry, caller)
    from reward.judges.pairwise import PairwiseJudge

    return PairwiseJudge.from_entry(entry, caller)
