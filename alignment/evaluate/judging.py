"""What a judge is, and how two orders of asking become one verdict.

Judges themselves live in `reward.judges`; evaluation and labelling are handed one.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

from alignment.data.rows import USABLE, Prompt, Status


@dataclass(frozen=True, slots=True)
class Comparison:
    """One question to a judge: which of two answers is better."""

    prompt: Prompt
    first: str
    second: str

    def swapped(self) -> "Comparison":
        """Return the same question with the answers in the other order."""
        return Comparison(self.prompt, self.second, self.first)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's answer to one question."""

    probability: float | None  # that the answer shown first is better; None unless status is usable
    status: Status
    raw: str = ""  # what the judge wrote, or the error
    details: dict[str, Any] = field(default_factory=dict)  # what the call store keeps: log-probabilities, usage, ...


class Judge(Protocol):
    """Compares two answers; `ask` may be called from several threads."""

    name: str  # exact: model and version, or module:function
    prompt_hash: str  # of the prompt template or the function's source

    def ask(self, comparison: Comparison) -> Verdict:
        """Answer one question; failures are statuses, never exceptions, save `JudgeError` when asking on is useless."""
        ...


def combine(forward: Verdict, backward: Verdict) -> Verdict:
    """Average a verdict with that of the swapped question, as in https://arxiv.org/abs/2309.00267, section 3.1.

    Returns: probability that the first answer of `forward` is better. A failed side fails the pair: an error is
    never a label. A probability of exactly one half is a tie.
    """
    for verdict in (forward, backward):
        if verdict.status not in USABLE or verdict.probability is None:
            return Verdict(None, verdict.status, verdict.raw)
    assert forward.probability is not None
    assert backward.probability is not None
    # Not (p + 1 - q) / 2: for p = q that can round to just under one half, and a tie would be a loss.
    probability = 0.5 + (forward.probability - backward.probability) / 2.0
    return Verdict(probability, "tie" if probability == 0.5 else "ok")
