"""Judges, behind `alignment.evaluate.judging.Judge`.

A chat model judges in one of three modes: `pairwise`, `listwise` and `pointwise` here, over the chat models of
`alignment/calls/backends`. Other judges are in `backends`, one module for each kind.
"""

import importlib
from typing import Any

from alignment.calls.caller import Caller
from alignment.config.schema.judges import AnyJudge, ChatEntry
from alignment.evaluate.judging import Judge


def build_judge(entry: AnyJudge, caller: Caller | None = None) -> Judge[Any]:
    """Return the judge that a recipe names.

    Args:
        caller: makes the judge's calls; None: one without a store that retries as the entry configures.

    Returns: a judge whose `mode` is the kind of question that it answers.

    Raises: JudgeError if its function, files or API key are not available; ModelError if its model is not.
    """
    name = entry.mode if isinstance(entry, ChatEntry) else f"backends.{entry.kind}"
    judge: Judge[Any] = importlib.import_module(f"reward.judges.{name}").build(
        entry, caller or Caller(max_retries=entry.retries)
    )
    return judge
