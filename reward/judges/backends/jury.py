"""A jury: the weighted mean of several judges."""

from collections.abc import Sequence
from typing import Any

from alignment.calls.caller import Caller
from alignment.config.schema.judges import JuryEntry
from alignment.data.rows import USABLE
from alignment.evaluate.judging import Judge, Mode, Question, Verdict
from reward.judges import build_judge
from reward.judges.prompting import joint_hash
from reward.judges.ratings import distribution_of_mean


class Jury:
    """Averages its members' probabilities or scores by their weights.

    Each member makes its own calls, so an additional member costs only its own. The members' verdicts are in the
    details of the jury's verdict.
    """

    def __init__(self, entry: JuryEntry, members: Sequence[Judge[Any]]) -> None:
        self.entry = entry
        self.members = members
        self.weights = [member.weight for member in entry.members]
        self.mode: Mode = entry.asks
        self.name = entry.label
        parts = [(judge.name, judge.prompt_hash, weight) for judge, weight in zip(members, self.weights, strict=True)]
        self.prompt_hash = joint_hash(entry.on_member_failure, *parts)

    def ask(self, question: Question) -> Verdict:
        """Return the weighted mean of the members' verdicts.

        If a member fails, the result has the status of the first one that fails; with `on_member_failure: leave_out` it
        is the mean of the others.

        Raises: JudgeError if a member's every other call would fail alike; BudgetError.
        """
        answers = [judge.ask(question) for judge in self.members]
        members = [
            {
                "judge": judge.name,
                "status": verdict.status,
                "probability": verdict.probability,
                "scores": verdict.scores,
                "calls": verdict.details.get("calls"),
            }
            for judge, verdict in zip(self.members, answers, strict=True)
        ]
        details: dict[str, Any] = {"members": members}
        failed = [place for place, verdict in enumerate(answers) if verdict.status not in USABLE]
        usable = [place for place in range(len(answers)) if place not in failed]
        if failed and (self.entry.on_member_failure == "fail" or not usable):
            first = answers[failed[0]]
            return Verdict(None, first.status, f"{self.members[failed[0]].name}: {first.raw}", details)
        weights = [self.weights[place] for place in usable]
        shares = [weight / sum(weights) for weight in weights]
        verdicts = [answers[place] for place in usable]
        raw = "\n".join(f"{self.members[place].name}: {answers[place].raw}" for place in usable)
        if self.mode == "pairwise":
            return self._compared(shares, verdicts, raw, details)
        columns = zip(*(verdict.scores or () for verdict in verdicts), strict=True)
        scores = tuple(sum(share * score for share, score in zip(shares, column, strict=True)) for column in columns)
        if self.mode == "pointwise" and any("distribution" in verdict.details for verdict in verdicts):
            known = [
                verdict.details.get("distribution") or {str((verdict.scores or (0.0,))[0]): 1.0} for verdict in verdicts
            ]
            details["distribution"] = distribution_of_mean(shares, known)
        return Verdict(None, "ok", raw, details, scores)

    def _compared(
        self, shares: Sequence[float], verdicts: Sequence[Verdict], raw: str, details: dict[str, Any]
    ) -> Verdict:
        # Relative to one half, so that rounding does not turn ties of all members into a preference.
        leads = [(verdict.probability or 0.0) - 0.5 for verdict in verdicts]
        probability = 0.5 + sum(share * lead for share, lead in zip(shares, leads, strict=True))
        probability = min(1.0, max(0.0, probability))
        if self.entry.clamp:
            details["unclamped"] = probability
            low, high = self.entry.clamp
            probability = min(high, max(low, probability))
        return Verdict(probability, "tie" if probability == 0.5 else "ok", raw, details)


def build(entry: JuryEntry, caller: Caller) -> Jury:
    """Build every member.

    Raises: JudgeError if one is not available.
    """
    return Jury(entry, [build_judge(member, caller) for member in entry.members])
