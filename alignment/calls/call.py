"""One call to a language model: its context, reply, key and store."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from alignment.data.rows import Prompt
from alignment.evaluate.judging import Comparison, Listing, Question

Step = Literal["verdict", "reasoning", "repair", "critique", "revision", "writing"]


@dataclass(frozen=True, slots=True)
class Writing:
    """One text that a model writes, in place of a question to a judge."""

    prompt: Prompt
    repeat: int = 0  # which of several texts to the same prompt


@dataclass(frozen=True, slots=True)
class ChatReply:
    """The result of one call."""

    status: Literal["ok", "refusal", "truncated", "api_error"]
    raw: str  # the text of the reply, or the error, truncated
    text: str = ""  # the whole text of the reply
    tokens: list[dict[str, Any]] = field(default_factory=list)  # with log-probabilities, if requested
    details: dict[str, Any] = field(default_factory=dict)  # the exact model, the finish reason, the usage
    transient: bool = False  # a temporary error: too many requests, a server error, a lost connection
    limited: bool = False  # the server reports too many requests
    retry_after_seconds: float | None = None  # as the server requested
    cost: float | None = None  # in the currency of the recipe's prices


@dataclass(frozen=True, slots=True)
class CallContext:
    """Why a call is made; stored with it."""

    judge: str
    prompt_hash: str
    question: Question | Writing
    step: Step = "verdict"
    calls_to_come: int = 0  # further calls of the same question, if none fails
    max_tokens: int = 0  # of the reply

    def key(self) -> str:
        """Return `question_key` of the question."""
        return question_key(self.question)


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was made, as a store keeps it."""

    key: str  # see `call_key`
    context: CallContext
    request: dict[str, Any]
    reply: ChatReply
    seconds: float = 0.0  # that it took
    asked_at: float = 0.0  # Unix time


class CallCache(Protocol):
    """A store of calls; several threads share one."""

    fence_secret: bytes  # secret of the fences in its calls, see `reward.judges.prompting.Fence`

    def known(self, key: str) -> ChatReply | None:
        """Return the stored reply of status "ok" under `key`."""
        ...

    def keep(self, call: Call) -> None:
        """Store one call, failed or not; a kill after this returns does not lose it."""
        ...


def question_key(question: Question | Writing) -> str:
    """Return the SHA-256 of a question's kind, prompt and answers in the order shown; repeats have the same key."""
    if isinstance(question, Comparison):
        parts: list[Any] = ["pairwise", question.prompt, question.first, question.second]
    elif isinstance(question, Listing):
        parts = ["listwise", question.prompt, *question.answers]
    elif isinstance(question, Writing):
        parts = ["writing", question.prompt]
    else:
        parts = ["pointwise", question.prompt, question.answer]
    return _digest(parts)


def swapped_key(question: Question | Writing) -> str:
    """Return the key of a comparison in the other order; for other questions their own."""
    return question_key(question.swapped() if isinstance(question, Comparison) else question)


def call_key(context: CallContext, request: dict[str, Any]) -> str:
    """Return the SHA-256 of judge, repeat and request."""
    return _digest([context.judge, context.question.repeat, request])


def estimated_tokens(request: Any) -> int:
    """Estimate the tokens of all texts in a request at three bytes per token; English has four to five."""
    if isinstance(request, str):
        return len(request.encode("utf-8", "replace")) // 3 + 4
    if isinstance(request, dict):
        return sum(estimated_tokens(value) for value in request.values())
    return sum(map(estimated_tokens, request)) if isinstance(request, list | tuple) else 0


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
