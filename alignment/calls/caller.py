"""Makes calls to language models: from the store if possible, else within rate limits and budget, with retries.

A backend passes every call to a `Caller`, with a function that makes one attempt. The store has replies, not verdicts,
so a judge that runs over stored replies makes no call and gives the same verdicts, or those of a newer parser.
"""

import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from alignment.calls.budget import Budget
from alignment.calls.call import (
    Call,
    CallCache,
    CallContext,
    ChatReply,
    call_key,
    estimated_tokens,
    question_key,
    swapped_key,
)
from alignment.calls.endpoint import backoff
from alignment.calls.prices import Tariff
from alignment.calls.rate_limiter import RateLimiter

NO_CALLS = "a dry run makes no calls"
SHOWN_CHARACTERS = 160  # of a failure, in the message about a wait


class Caller:
    """Makes calls; several threads share one."""

    makes_no_calls = False  # True: a backend need not check the connection to its server

    def __init__(
        self,
        *,
        cache: CallCache | None = None,
        budget: Budget | None = None,
        rate_limiter: RateLimiter | None = None,
        max_retries: int = 5,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.cache = cache
        self.budget = budget
        self.rate_limiter = rate_limiter or RateLimiter()
        self.max_retries = max_retries
        self.sleep = sleep
        self._lock = threading.Lock()
        self._in_flight: dict[str, Future[ChatReply]] = {}

    @property
    def fence_secret(self) -> bytes | None:
        """The secret of fences, which the store keeps; None without a store."""
        return self.cache.fence_secret if self.cache else None

    def call(self, context: CallContext, request: dict[str, Any], send: Callable[[], ChatReply]) -> ChatReply:
        """Return the stored reply, or make the call, with retries after temporary failures.

        If several threads make the same call at the same time, one makes it and all get its result.

        Args:
            request: everything that determines the reply, as JSON, without the API key.
            send: makes one attempt. It raises JudgeError if every other call would fail alike.

        Raises: JudgeError from `send`; BudgetError if the budget does not allow the call.
        """
        key = call_key(context, request)
        with self._lock:
            other = self._in_flight.get(key)
            mine = self._in_flight.setdefault(key, Future())
        if other is not None:
            return other.result()
        try:
            # Looked up only now: a thread that made the same call has stored its reply before it left _in_flight.
            reply = (self.cache.known(key) if self.cache else None) or self._with_retries(key, context, request, send)
        except BaseException as error:
            mine.set_exception(error)
            raise
        else:
            mine.set_result(reply)
            return reply
        finally:
            with self._lock:
                del self._in_flight[key]

    def _with_retries(
        self, key: str, context: CallContext, request: dict[str, Any], send: Callable[[], ChatReply]
    ) -> ChatReply:
        for attempt in range(1, self.max_retries + 2):
            reply = self._try(key, context, request, send)
            if not reply.transient or attempt > self.max_retries:
                return reply
            seconds = backoff(attempt, reply.retry_after_seconds)
            error = " ".join(reply.raw.split())[:SHOWN_CHARACTERS]
            self.rate_limiter.log_wait(
                seconds, f"{error}; then try {attempt + 1} of {self.max_retries + 1} (max_retries)"
            )
            self.sleep(seconds)
        raise AssertionError("unreachable")

    def _try(self, key: str, context: CallContext, request: dict[str, Any], send: Callable[[], ChatReply]) -> ChatReply:
        reserved = self.budget.reserve(request, context) if self.budget else 0.0
        with self.rate_limiter.slot(estimated_tokens(request) + context.max_tokens):
            asked_at, start = time.time(), time.perf_counter()
            reply = send()
            seconds = time.perf_counter() - start
        if reply.limited:
            self.rate_limiter.slow_down(reply.retry_after_seconds)
        elif reply.status != "api_error":
            self.rate_limiter.speed_up()
        if self.budget:
            reply = dataclasses.replace(reply, cost=self.budget.settle(reserved, reply, context))
        if self.cache:
            self.cache.keep(Call(key, context, request, reply, seconds, asked_at))
        return reply


class DryCaller(Caller):
    """Makes no call and counts the calls that a run would make beyond the stored ones."""

    makes_no_calls = True

    def __init__(self, cache: CallCache | None = None, prices: Tariff | None = None) -> None:
        super().__init__(cache=cache)
        self.prices = prices
        self.calls = self.prompt_tokens = self.completion_tokens = 0
        self.cost = 0.0  # maximum
        # These calls by judge, prompt hash, key of the question and key of the question in the other order.
        self.lacking: Counter[tuple[str, str, str, str]] = Counter()

    def call(self, context: CallContext, request: dict[str, Any], send: Any) -> ChatReply:
        """Return the stored reply; without one, count the call and return a failure."""
        known = self.cache.known(call_key(context, request)) if self.cache else None
        if known is not None:
            return known
        if context.step == "repair":  # never made, so the first reply stays without a verdict
            return ChatReply("ok", "")
        calls = 1 + context.calls_to_come
        with self._lock:
            self.calls += calls
            question = context.question
            whose = (context.judge, context.prompt_hash, question_key(question), swapped_key(question))
            self.lacking[whose] += calls
            self.prompt_tokens += calls * estimated_tokens(request)
            self.completion_tokens += calls * context.max_tokens
            if self.prices:
                self.cost += calls * self.prices.cost(context.judge, estimated_tokens(request), context.max_tokens)
        return ChatReply("api_error", NO_CALLS)
