"""Judges: one file per backend behind `alignment.evaluate.judging.Judge`."""

from alignment.config.schema import JudgeEntry
from alignment.evaluate.judging import Judge


def build_judge(entry: JudgeEntry) -> Judge:
    """Return the judge that a recipe names.

    Raises: JudgeError where its function, prompt file or API key cannot be had.
    """
    if entry.kind == "rules":
        from reward.judges.rules import RulesJudge

        return RulesJudge.from_entry(entry)
    from reward.judges.openai import OpenAIJudge

    return OpenAIJudge.from_entry(entry)
