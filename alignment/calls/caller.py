"""One call to a judge, and what stands between it and the money: what was paid for, the pace, the budget, retries.

A backend hands every call to a `Caller`, with a function that tries once. Verdicts are read from replies, never kept in
their place, so that a judge run over replies that are known makes no call and gives the same verdicts, or another
parser's.
"""

import dataclasses
import hashlib
import json
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from alignment.calls.rate_limiter import Pace
from alignment.evaluate.judging import Comparison, Listing, Question

BACKOFF_SECONDS = 0.5  # before the first retry; doubles with each
LONGEST_BACKOFF_SECONDS = 30.0
SHOWN_CHARACTERS = 160  # of a failure that is waited for

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
    retry_after_seconds: float | None = None  # as the server asked
    cost: float | None = None  # in the currency of the recipe's prices


@dataclass(frozen=True, slots=True)
class About:
    """Why a call is made; stands in its row of the store."""

    judge: str
    prompt_hash: str
    question: Question
    step: Step = "verdict"
    calls_to_come: int = 0  # that follow this one where all goes well
    max_tokens: int = 0  # the most that the reply may have

    def key(self) -> str:
        """Identify the question: its kind, prompt, answers and their order, not which repeat it is."""
        return question_key(self.question)


class Ledger(Protocol):
    """Where calls are kept; used from several threads."""

    fence_secret: bytes  # what the fences in its calls are made with

    def known(self, key: str) -> ChatReply | None:
        """Return the good reply that was kept under `key`."""
        ...

    def keep(
        self, key: str, about: About, request: dict[str, Any], reply: ChatReply, *, seconds: float, asked_at: float
    ) -> None:
        """Keep one call, good or bad; once this returns, no kill loses it."""
        ...


class Purse(Protocol):
    """What calls may cost; used from several threads."""

    def reserve(self, request: dict[str, Any], about: About) -> float:
        """Set aside what a call may cost at most and return it.

        Raises: BudgetError where that is more than what is left.
        """
        ...

    def settle(self, reserved: float, reply: ChatReply, about: About) -> float | None:
        """Take what the call did cost instead and return it; None without a price."""
        ...


class Caller:
    """Makes calls; several threads share one."""

    asks_nobody = False  # a backend need not look whether its server is there

    def __init__(
        self,
        *,
        ledger: Ledger | None = None,
        purse: Purse | None = None,
        pace: Pace | None = None,
        max_retries: int = 5,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.ledger = ledger
        self.purse = purse
        self.pace = pace or Pace()
        self.max_retries = max_retries
        self.sleep = sleep
        self._lock = threading.Lock()
        self._in_flight: dict[str, Future[ChatReply]] = {}

    @property
    def fence_secret(self) -> bytes | None:
        """What fences are made with, the same for the same calls; None where no calls are kept."""
        return self.ledger.fence_secret if self.ledger else None

    def call(self, about: About, request: dict[str, Any], send: Callable[[], ChatReply]) -> ChatReply:
        """Return the reply that is known, or try until one comes that is not a passing failure.

        Of several threads that make the same call at the same time one makes it, and all get what comes of it.

        Args:
            request: all that decides the reply, without the key that pays for it; JSON.
            send: tries once. It raises JudgeError where every other call would fail alike.

        Raises: JudgeError from `send`; BudgetError where the budget does not allow the call.
        """
        key = call_key(about, request)
        with self._lock:
            other = self._in_flight.get(key)
            mine = self._in_flight.setdefault(key, Future())
        if other is not None:
            return other.result()
        try:
            # Looked up only now: who had the place before has kept its reply by the time it gives the place up.
            reply = (self.ledger.known(key) if self.ledger else None) or self._until_it_lasts(key, about, request, send)
        except BaseException as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(reply)
            return reply
        finally:
            with self._lock:
                del self._in_flight[key]

    def _until_it_lasts(
        self, key: str, about: About, request: dict[str, Any], send: Callable[[], ChatReply]
    ) -> ChatReply:
        for attempt in range(1, self.max_retries + 2):
            reply = self._try(key, about, request, send)
            if not reply.transient or attempt > self.max_retries:
                return reply
            seconds = backoff(attempt, reply.retry_after_seconds)
            said = " ".join(reply.raw.split())[:SHOWN_CHARACTERS]
            self.pace.tell_of_wait(seconds, f"{said}; then try {attempt + 1} of {self.max_retries + 1} (max_retries)")
            self.sleep(seconds)
        raise AssertionError("unreachable")

    def _try(self, key: str, about: About, request: dict[str, Any], send: Callable[[], ChatReply]) -> ChatReply:
        reserved = self.purse.reserve(request, about) if self.purse else 0.0
        with self.pace.slot(estimated_tokens(request) + about.max_tokens):
            asked_at, start = time.time(), time.perf_counter()
            reply = send()
            seconds = time.perf_counter() - start
        if reply.limited:
            self.pace.slow_down(reply.retry_after_seconds)
        elif reply.status != "api_error":
            self.pace.speed_up()
        if self.purse:
            reply = dataclasses.replace(reply, cost=self.purse.settle(reserved, reply, about))
        if self.ledger:
            self.ledger.keep(key, about, request, reply, seconds=seconds, asked_at=asked_at)
        return reply


def backoff(attempt: int, retry_after_seconds: float | None) -> float:
    """Seconds to wait: as the server asked and a little more, else a random part of a time that doubles."""
    if retry_after_seconds is not None:
        return retry_after_seconds + random.random() * BACKOFF_SECONDS
    longest = min(LONGEST_BACKOFF_SECONDS, BACKOFF_SECONDS * 2 ** min(attempt - 1, 10))
    return longest * (0.5 + random.random() / 2)


def question_key(question: Question) -> str:
    """Identify a question: its kind, prompt, answers and their order, not which repeat it is."""
    if isinstance(question, Comparison):
        parts: list[Any] = ["pairwise", question.prompt, question.first, question.second]
    elif isinstance(question, Listing):
        parts = ["listwise", question.prompt, *question.answers]
    else:
        parts = ["pointwise", question.prompt, question.answer]
    return _digest(parts)


def call_key(about: About, request: dict[str, Any]) -> str:
    """Identify a call: who is asked, what, and which of several askings it is."""
    return _digest([about.judge, about.question.repeat, request])


def estimated_tokens(request: Any) -> int:
    """Estimate the tokens of all texts in a request, three bytes to a token: English has four to five."""
    if isinstance(request, str):
        return len(request.encode("utf-8", "replace")) // 3 + 4
    if isinstance(request, dict):
        return sum(estimated_tokens(value) for value in request.values())
    return sum(map(estimated_tokens, request)) if isinstance(request, list | tuple) else 0


def _digest(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
