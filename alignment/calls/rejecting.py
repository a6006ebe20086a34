"""Replies without a verdict are no answers: the next run makes their calls anew."""

from typing import Any

from alignment.calls.store import CallStore
from alignment.evaluate.judging import Judge, Question, Verdict

ANSWERED = frozenset({"ok", "tie", "abstain"})  # the judge's own answers


class RejectingJudge:
    """Marks in the store, at once and in the calling thread, the replies of `judge` that gave no verdict."""

    def __init__(self, judge: Judge[Any], store: CallStore | None) -> None:
        self.judge, self.store = judge, store
        self.name, self.prompt_hash, self.mode = judge.name, judge.prompt_hash, judge.mode

    def ask(self, question: Question, /) -> Verdict:
        """Ask the judge."""
        verdict = self.judge.ask(question)
        if self.store is not None:
            own = {"judge": self.name, "status": verdict.status, "calls": verdict.details.get("calls")}
            for each in verdict.details.get("members", [own]):  # of a jury only who failed is asked anew
                if each["status"] not in ANSWERED:
                    self.store.reject(question, each["judge"], each["calls"])
        return verdict
