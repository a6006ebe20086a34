"""Makes calls to language models: known replies first, then within the rate limits and the budget, with retries.

A backend hands every call to a `Caller`, with a function that tries once. Verdicts are read from replies and not stored
in their place, so a judge that runs over known replies makes no call and gives the same verdicts, or those of a newer
parser.
"""

import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from alignment.calls.budget import Budget
from alignment.calls.call import CallCache, CallContext, ChatReply, call_key, estimated_tokens
from alignment.calls.endpoint import backoff
from alignment.calls.prices import Tariff
from alignment.calls.rate_limiter import RateLimiter

SHOWN_CHARACTERS = 160  # of a failure that is waited for


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
        """What fences are made with, the same for the same calls; None where no calls are kept."""
        return self.cache.fence_secret if self.cache else None

    def call(self, context: CallContext, request: dict[str, Any], send: Callable[[], ChatReply]) -> ChatReply:
        """Return the reply that is known, or try until one comes that is not a passing failure.

        Of several threads that make the same call at the same time one makes it, and all get what comes of it.

        Args:
            request: all that decides the reply, without the key that pays for it; JSON.
            send: tries once. It raises JudgeError where every other call would fail alike.

        Raises: JudgeError from `send`; BudgetError where the budget does not allow the call.
        """
        key = call_key(context, request)
        with self._lock:
            other = self._in_flight.get(key)
            mine = self._in_flight.setdefault(key, Future())
        if other is not None:
            return other.result()
        try:
            # Looked up only now: who had the place before has kept its reply by the time it gives the place up.
            reply = (self.cache.known(key) if self.cache else None) or self._until_it_lasts(key, context, request, send)
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
            self.cache.keep(key, context, request, reply, seconds=seconds, asked_at=asked_at)
        return reply


class DryCaller(Caller):
    """Makes no call and counts the calls that a run would make beyond the known ones."""

    makes_no_calls = True

    def __init__(self, cache: CallCache | None = None, prices: Tariff | None = None) -> None:
        super().__init__(cache=cache)
        self.prices = prices
        self.calls = self.prompt_tokens = self.completion_tokens = 0
        self.cost = 0.0  # at most
        self.lacking: Counter[tuple[str, str]] = Counter()  # these calls by judge and prompt's hash

    def call(self, context: CallContext, request: dict[str, Any], send: Any) -> ChatReply:
        """Return what is known, else count the call and fail."""
        known = self.cache.known(call_key(context, request)) if self.cache else None
        if known is not None:
            return known
        if context.step == "repair":  # that was never asked, so what came before it stays unreadable
            return ChatReply("ok", "")
        calls = 1 + context.calls_to_come
        with self._lock:
            self.calls += calls
            self.lacking[context.judge, context.prompt_hash] += calls
            self.prompt_tokens += calls * estimated_tokens(request)
            self.completion_tokens += calls * context.max_tokens
            if self.prices:
                self.cost += calls * self.prices.cost(context.judge, estimated_tokens(request), context.max_tokens)
        return ChatReply("api_error", "a dry run makes no calls")
