"""What one call to a language model is: why it is made, its reply, what identifies it, and where it is kept."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from alignment.evaluate.judging import Comparison, Listing, Question

Step = Literal["verdict", "reasoning", "repair", "critique", "revision"]


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What came of one call."""

    status: Literal["ok", "refusal", "truncated", "api_error"]
    raw: str  # what the model wrote, or the error, cut short
    text: str = ""  # what the model wrote, whole
    tokens: list[dict[str, Any]] = field(default_factory=list)  # with log-probabilities, where asked for
    details: dict[str, Any] = field(default_factory=dict)  # the exact model, the finish reason, the usage
    transient: bool = False  # an error that may pass: too many requests, a server's fault, a lost connection
    limited: bool = False  # the server said that there are too many requests
    retry_after_seconds: float | None = None  # as the server requested
    cost: float | None = None  # in the currency of the recipe's prices


@dataclass(frozen=True, slots=True)
class CallContext:
    """Why a call is made; stored with it."""

    judge: str
    prompt_hash: str
    question: Question
    step: Step = "verdict"
    calls_to_come: int = 0  # that follow this one where all goes well
    max_tokens: int = 0  # the most that the reply may have

    def key(self) -> str:
        """Identify the question: its kind, prompt, answers and their order, not which repeat it is."""
        return question_key(self.question)


class CallCache(Protocol):
    """A store of calls; several threads share one."""

    fence_secret: bytes  # what the fences in its calls are made with

    def known(self, key: str) -> ChatReply | None:
        """Return the good reply that was kept under `key`."""
        ...

    def keep(
        self,
        key: str,
        context: CallContext,
        request: dict[str, Any],
        reply: ChatReply,
        *,
        seconds: float,
        asked_at: float,
    ) -> None:
        """Keep one call, good or bad; once this returns, no kill loses it."""
        ...


def question_key(question: Question) -> str:
    """Identify a question: its kind, prompt, answers and their order, not which repeat it is."""
    if isinstance(question, Comparison):
        parts: list[Any] = ["pairwise", question.prompt, question.first, question.second]
    elif isinstance(question, Listing):
        parts = ["listwise", question.prompt, *question.answers]
    else:
        parts = ["pointwise", question.prompt, question.answer]
    return _digest(parts)


def call_key(context: CallContext, request: dict[str, Any]) -> str:
    """Identify a call by judge, request and repeat."""
    return _digest([context.judge, context.question.repeat, request])


def estimated_tokens(request: Any) -> int:
    """Estimate the tokens of all texts in a request, three bytes to a token: English has four to five."""
    if isinstance(request, str):
        return len(request.encode("utf-8", "replace")) // 3 + 4
    if isinstance(request, dict):
        return sum(estimated_tokens(value) for value in request.values())
    return sum(map(estimated_tokens, request)) if isinstance(request, list | tuple) else 0


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
