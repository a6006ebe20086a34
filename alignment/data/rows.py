"""The rows every other part works with: demonstrations for fine-tuning, rankings for preferences."""

from dataclasses import dataclass, field
from typing import Any, Literal

Message = dict[str, str]
Prompt = str | list[Message]  # plain text to continue, or chat messages to answer

Shown = Literal["first", "swapped"]
Status = Literal["ok", "tie", "abstain", "parse_error", "refusal", "truncated", "api_error"]
POLICIES = "policies"  # in provenance: the name of each response's policy
REASONING_FIELD = "reasoning_field"  # in `Ranking.provenance`: of each answer, its reasoning was in a field of its own
DESIRABLE = "desirable"  # in `Ranking.provenance`: of each answer, the probability that it is good by itself, or None
USABLE: frozenset[str] = frozenset({"ok", "tie"})  # only these train anything


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A prompt and the answer to imitate.

    A chat prompt may hold earlier assistant turns; they are learned too, but for those in `untrained`. `prompt` is ""
    for plain text.
    """

    prompt: Prompt
    completion: str
    tools: str | None = None  # JSON, for templates that render tools
    source: str = ""  # "file:line" for messages
    answer: Message | None = None  # where it is more than `completion`: tool calls, or reasoning in a field
    untrained: frozenset[int] = frozenset()  # places of the assistant's messages without loss
    sampled: "Ranking | None" = None  # the answer alone where a policy wrote it: its tokens, and whether it ended
    desirable: float | None = None  # probability that the answer is good, where the row has a label

    def conversation(self) -> list[Message]:
        """Return the messages of a chat prompt with the answer."""
        prompt = self.prompt if isinstance(self.prompt, list) else [{"role": "user", "content": self.prompt}]
        return [*prompt, self.answer or {"role": "assistant", "content": self.completion}]

    def trained(self) -> list[int]:
        """Return the places of the messages that are learned."""
        turns = enumerate(self.conversation())
        return [place for place, turn in turns if turn["role"] == "assistant" and place not in self.untrained]


@dataclass(frozen=True, slots=True)
class SingleVerdict:
    """One verdict on a pair, from which its probability is averaged."""

    shown: Shown  # the order in which the pair's answers were shown
    repeat: int  # number of the call in that order
    probability: float | None  # that the answer shown first is better; None unless usable
    status: Status
    mass: float | None = None  # probability that the verdict's token was one of those offered, where it is known


@dataclass(frozen=True, slots=True)
class Pair:
    """How two of a prompt's answers compare."""

    first: int  # index into `responses`
    second: int
    probability: float | None  # that `first` is better, both presentation orders averaged; None unless usable
    status: Status = "ok"
    margin: float | None = None  # rating gap, where the source has one
    verdicts: tuple[SingleVerdict, ...] = ()  # of judges or people


@dataclass(frozen=True, slots=True)
class Ranking:
    """K answers to one prompt, and comparisons of them."""

    prompt: Prompt
    responses: list[str]
    pairs: list[Pair]
    provenance: dict[str, Any] = field(default_factory=dict)  # judge, prompt hash, policy, ...
    source: str = ""

    def stopped(self, index: int) -> bool:
        """Return whether an answer ended with a stop token; one cut off at `max_new_tokens` gets none in training."""
        stopped = self.provenance.get("stopped")
        return bool(stopped[index]) if stopped is not None else True

    def reasoning_field(self, index: int) -> bool:
        """Whether the data has an answer's reasoning in a field of its own, not in the text."""
        fields = self.provenance.get(REASONING_FIELD)
        return bool(fields[index]) if fields is not None else False

    def same_answer(self, first: int, second: int) -> bool:
        """Return whether two answers are the same text, without white space around it, and end alike."""
        same_text = self.responses[first].strip() == self.responses[second].strip()
        return same_text and self.stopped(first) == self.stopped(second)


@dataclass(frozen=True, slots=True)
class Unpaired(Ranking):
    """Answers to one prompt, each labelled by itself; no pair is compared."""

    desirable: tuple[float | None, ...] = ()  # of each answer, the probability that it is good; None: it has no label
