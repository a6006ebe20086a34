"""Faults of a judge's entry, as a recipe that holds it is refused."""

from typing import Any

import pydantic

from alignment.config.faults import from_pydantic
from alignment.config.rules.judges import judge_faults as broken_rules
from alignment.config.schema.judges import JudgeEntry
from alignment.config.schema.parts import Part


class OneJudge(Part):
    judge: JudgeEntry


def judge_faults(entry: dict[str, Any]) -> list[str]:
    """Return what the schema finds, or what the rules find in an entry that the schema accepts."""
    try:
        OneJudge.model_validate({"judge": entry})
    except pydantic.ValidationError as error:
        return [message for _, message in from_pydantic(error, OneJudge, {"judge": entry})]
    return [message for _, message in broken_rules(("judge",), entry)]
