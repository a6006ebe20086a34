"""Marks replies without a verdict in the store, so that the next run repeats their calls."""

from typing import Any

from alignment.calls.store import CallStore
from alignment.evaluate.judging import Judge, Question, Verdict

ANSWERED = frozenset({"ok", "tie", "abstain"})  # statuses of verdicts


class RejectingJudge:
    """Marks the replies of `judge` without a verdict in the store, in the calling thread."""

    def __init__(self, judge: Judge[Any], store: CallStore | None) -> None:
        self.judge, self.store = judge, store
        self.name, self.prompt_hash, self.mode = judge.name, judge.prompt_hash, judge.mode

    def ask(self, question: Question, /) -> Verdict:
        """Return the judge's verdict."""
        verdict = self.judge.ask(question)
        if self.store is not None:
            own = {"judge": self.name, "status": verdict.status, "calls": verdict.details.get("calls")}
            for each in verdict.details.get("members", [own]):  # of a jury, only the members that failed
                if each["status"] not in ANSWERED:
                    self.store.reject(question, each["judge"], each["calls"])
        return verdict
