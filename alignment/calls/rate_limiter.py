"""Limits of concurrent calls, and of requests and tokens per minute."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from alignment.meter import duration, say

SLOWER = 0.7  # factor of the concurrency after a server reported too many requests
REST_SECONDS = 1.0  # after that, in which replies to calls in flight do not lower it again
MINUTE = 60.0
REPORTED_SECONDS = 5.0  # shorter waits are not reported


class RateLimiter:
    """Limits the concurrency, and requests and tokens per minute; several threads share one.

    The concurrency falls by a factor when the server reports too many requests, and grows by one for every round of
    successful replies (additive increase, multiplicative decrease, as in TCP). No call begins before the time that a
    server requests with `Retry-After`.
    """

    def __init__(
        self,
        max_concurrency: int | None = None,
        *,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        tell: Callable[[str], None] = say,
    ) -> None:
        """Set the limits.

        Args:
            tell: function that is called with the reason of a long wait, once for all threads.
        """
        self.max_concurrency = max_concurrency
        self.limit = float(max_concurrency) if max_concurrency else float("inf")
        self.in_flight = 0
        self._seconds_per_request = MINUTE / requests_per_minute if requests_per_minute else 0.0
        self._seconds_per_token = MINUTE / tokens_per_minute if tokens_per_minute else 0.0
        self._next = clock()  # when the next call may begin
        self._rested = clock()  # until then, reports are about calls that began before the last report
        self._why = ""  # the reason of the next call's wait
        self._reported_until = clock()
        self._clock, self._sleep, self._tell = clock, sleep, tell
        self._free = threading.Condition()

    @contextlib.contextmanager
    def slot(self, tokens: int = 0) -> Iterator[None]:
        """Wait until a call may begin; `tokens` is the maximum that it may use."""
        self._begin(tokens)
        try:
            yield
        finally:
            with self._free:
                self.in_flight -= 1
                self._free.notify()

    def slow_down(self, seconds: float | None) -> None:
        """Lower the concurrency, and begin no call for `seconds`, if the server requested a wait."""
        with self._free:
            now = self._clock()
            if seconds is not None and now + seconds > self._next:
                self._next, self._why = now + seconds, "the server requested a wait"
            if now < self._rested:
                return
            self._rested = now + max(REST_SECONDS, seconds or 0.0)
            if self.max_concurrency:
                self.limit = max(1.0, self.limit * SLOWER)

    def speed_up(self) -> None:
        """Raise the concurrency after a successful reply."""
        if self.max_concurrency and self.limit < self.max_concurrency:
            with self._free:
                self.limit = min(float(self.max_concurrency), self.limit + 1.0 / self.limit)
                self._free.notify()

    def log_wait(self, seconds: float, why: str) -> None:
        """Report a wait, unless a reported wait lasts at least as long."""
        with self._free:
            until = self._clock() + seconds
            if seconds < REPORTED_SECONDS or until <= self._reported_until + REPORTED_SECONDS:
                return
            self._reported_until = until
        self._tell(f"no call to the model for {duration(seconds)}: {why}")

    def _begin(self, tokens: int) -> None:
        with self._free:
            while self.in_flight + 1 > self.limit:
                self._free.wait()
            self.in_flight += 1
        try:
            while True:
                with self._free:
                    now = self._clock()
                    wait = self._next - now
                    if wait <= 0:
                        by_tokens = self._seconds_per_token * tokens
                        spacing = max(self._seconds_per_request, by_tokens)
                        self._why = "tokens_per_minute" if by_tokens == spacing else "requests_per_minute"
                        self._next = max(self._next, now) + spacing
                        return
                    why = self._why
                self.log_wait(wait, why)
                self._sleep(min(wait, 1.0))
        except BaseException:
            with self._free:
                self.in_flight -= 1
                self._free.notify()
            raise
