import threading
import time

import pytest

from alignment.calls.rate_limiter import RateLimiter


class Clock:
    """Time that passes only where somebody sleeps."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def begins(rate_limiter, clock, tokens):
    times = []
    for count in tokens:
        with rate_limiter.slot(count):
            times.append(clock.now - 100.0)
    return times


def test_requests_a_minute_are_spaced():
    clock = Clock()
    rate_limiter = RateLimiter(requests_per_minute=30, clock=clock, sleep=clock.sleep)
    assert begins(rate_limiter, clock, [0, 0, 0]) == pytest.approx([0.0, 2.0, 4.0])  # 60 s / 30


def test_tokens_a_minute_are_spaced_by_what_each_call_may_use():
    clock = Clock()
    rate_limiter = RateLimiter(tokens_per_minute=6000, clock=clock, sleep=clock.sleep)
    # 500 tokens take 60/6000 x 500 = 5 s, 200 take 2 s
    assert begins(rate_limiter, clock, [500, 200, 100]) == pytest.approx([0.0, 5.0, 7.0])


def test_each_reason_of_long_waits_is_reported_once():
    clock, told = Clock(), []
    rate_limiter = RateLimiter(requests_per_minute=0.5, clock=clock, sleep=clock.sleep, tell=told.append)
    assert begins(rate_limiter, clock, [0, 0, 0]) == pytest.approx([0.0, 120.0, 240.0])
    assert told == ["no call to the model for 2:00: requests_per_minute"] * 2
    told.clear()
    rate_limiter = RateLimiter(tokens_per_minute=60, clock=clock, sleep=clock.sleep, tell=told.append)
    begins(rate_limiter, clock, [600, 1])
    rate_limiter.slow_down(30.0)
    begins(rate_limiter, clock, [1])
    assert told == [
        "no call to the model for 10:00: tokens_per_minute",
        "no call to the model for 30.0 s: the server requested a wait",
    ]
    quick = RateLimiter(requests_per_minute=60, clock=clock, sleep=clock.sleep, tell=told.append)
    begins(quick, clock, [0] * 5)
    assert len(told) == 2


def test_no_call_begins_while_the_server_asked_to_be_left_alone():
    clock = Clock()
    rate_limiter = RateLimiter(4, clock=clock, sleep=clock.sleep)
    rate_limiter.slow_down(12.5)
    assert begins(rate_limiter, clock, [0, 0]) == pytest.approx([12.5, 12.5])


def test_concurrency_falls_once_for_one_burst_of_complaints_and_grows_back():
    clock = Clock()
    rate_limiter = RateLimiter(10, clock=clock, sleep=clock.sleep)
    rate_limiter.slow_down(None)
    rate_limiter.slow_down(None)  # of the same burst
    assert rate_limiter.limit == pytest.approx(7.0)  # 10 x 0.7
    clock.sleep(1.5)
    rate_limiter.slow_down(None)
    assert rate_limiter.limit == pytest.approx(4.9)
    rate_limiter.speed_up()
    assert rate_limiter.limit == pytest.approx(4.9 + 1 / 4.9)
    for _ in range(200):
        rate_limiter.speed_up()
    assert rate_limiter.limit == 10.0
    for _ in range(50):
        clock.sleep(2)
        rate_limiter.slow_down(None)
    assert rate_limiter.limit == 1.0


def test_never_more_in_flight_than_the_limit():
    rate_limiter, most, lock = RateLimiter(3), [0, 0], threading.Lock()

    def work():
        with rate_limiter.slot():
            with lock:
                most[0] += 1
                most[1] = max(most)
            time.sleep(0.01)
            with lock:
                most[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[1] == 3
    assert rate_limiter.in_flight == 0


def test_an_interrupted_wait_gives_its_place_back():
    def interrupted(_):
        raise KeyboardInterrupt

    rate_limiter = RateLimiter(1, clock=Clock(), sleep=interrupted)
    rate_limiter.slow_down(5)
    with pytest.raises(KeyboardInterrupt), rate_limiter.slot():
        pass
    assert rate_limiter.in_flight == 0
