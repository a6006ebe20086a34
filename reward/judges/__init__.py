"""Judges: one file per backend behind `alignment.evaluate.judging.Judge`."""

from alignment.config.schema import JudgeEntry
from alignment.evaluate.judging import Judge
from reward.judges.calls import Caller


def build_judge(entry: JudgeEntry, caller: Caller | None = None) -> Judge:
    """Return the judge that a recipe names.

    Args:
        caller: makes the judge's calls; None: one that keeps nothing and retries as the entry says.

    Raises: JudgeError where its function, prompt file or API key cannot be had.
    """
    caller = caller or Caller(max_retries=entry.max_retries)
    if entry.kind == "rules":
        from reward.judges.rules import RulesJudge

        return RulesJudge.from_entry(entry, caller)
    from reward.judges.openai import OpenAIJudge

    return OpenAIJudge.from_entry(entry, caller)
