"""How many calls may be in flight, and how fast new ones may begin."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from alignment.meter import duration, say

SLOWER = 0.7  # what is left of the concurrency after a server said that it is too much
REST_SECONDS = 1.0  # answers to calls that were already in flight then do not count again
MINUTE = 60.0
REPORTED_SECONDS = 5.0  # shorter waits are not reported


class RateLimiter:
    """Holds calls to a concurrency and to requests and tokens a minute; several threads share one.

    The concurrency falls by a factor when the server asks for fewer requests and grows by one for every round of good
    answers (additive increase, multiplicative decrease, as in TCP). While a server has asked to be left alone, no
    call begins.
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
            tell: called with the reason of a long wait, once for all threads that wait for the same one.
        """
        self.max_concurrency = max_concurrency
        self.limit = float(max_concurrency) if max_concurrency else float("inf")
        self.in_flight = 0
        self._seconds_per_request = MINUTE / requests_per_minute if requests_per_minute else 0.0
        self._seconds_per_token = MINUTE / tokens_per_minute if tokens_per_minute else 0.0
        self._next = clock()  # when the next call may begin
        self._rested = clock()  # until then a complaint is about calls that began before the last one
        self._why = ""  # what the next call waits for
        self._reported_until = clock()
        self._clock, self._sleep, self._tell = clock, sleep, tell
        self._free = threading.Condition()

    @contextlib.contextmanager
    def slot(self, tokens: int = 0) -> Iterator[None]:
        """Wait for a place and the time to begin; `tokens` is the most that the call may use."""
        self._begin(tokens)
        try:
            yield
        finally:
            with self._free:
                self.in_flight -= 1
                self._free.notify()

    def slow_down(self, seconds: float | None) -> None:
        """Take note that the server wants fewer requests, and none for `seconds` where it said so."""
        with self._free:
            now = self._clock()
            if seconds is not None and now + seconds > self._next:
                self._next, self._why = now + seconds, "the server asks to be left alone"
            if now < self._rested:
                return
            self._rested = now + max(REST_SECONDS, seconds or 0.0)
            if self.max_concurrency:
                self.limit = max(1.0, self.limit * SLOWER)

    def speed_up(self) -> None:
        """Take note of a good answer."""
        if self.max_concurrency and self.limit < self.max_concurrency:
            with self._free:
                self.limit = min(float(self.max_concurrency), self.limit + 1.0 / self.limit)
                self._free.notify()

    def log_wait(self, seconds: float, why: str) -> None:
        """Report a wait, unless a reported wait that ends no earlier is going on."""
        with self._free:
            until = self._clock() + seconds
            if seconds < REPORTED_SECONDS or until <= self._reported_until + REPORTED_SECONDS:
                return
            self._reported_until = until
        self._tell(f"no call to the judge for {duration(seconds)}: {why}")

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
