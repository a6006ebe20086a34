import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from alignment.calls.call import CallContext, ChatReply, call_key, estimated_tokens, question_key
from alignment.calls.caller import Caller
from alignment.calls.endpoint import backoff
from alignment.calls.rate_limiter import RateLimiter
from alignment.errors import BudgetError, JudgeError
from alignment.evaluate.judging import Comparison, Listing, Rating

ABOUT = CallContext("judge", "hash", Comparison("2+2?", "4", "5"))
GOOD = ChatReply("ok", "A", "A")
BUSY = ChatReply("api_error", "429", transient=True, limited=True, retry_after_seconds=3.0)
BROKEN = ChatReply("api_error", "503", transient=True)


class CallCache:
    def __init__(self):
        self.rows, self.good = [], {}

    def known(self, key):
        return self.good.get(key)

    def keep(self, call):
        self.rows.append(call.reply.status)
        if call.reply.status == "ok":
            self.good[call.key] = call.reply


def sender(*replies):
    left = list(replies)
    return lambda: left.pop(0)


def caller(**given):
    slept = []
    return Caller(sleep=slept.append, **given), slept


def test_a_known_reply_is_not_asked_for_again():
    cache = CallCache()
    asking, _ = caller(cache=cache)
    assert asking.call(ABOUT, {"messages": "x"}, sender(GOOD)) is GOOD
    assert asking.call(ABOUT, {"messages": "x"}, sender()) is GOOD  # an empty sender would raise
    assert cache.rows == ["ok"]


def test_another_request_repeat_or_judge_is_another_call():
    again = CallContext("judge", "hash", Comparison("2+2?", "4", "5", repeat=1))
    other = CallContext("other", "hash", ABOUT.question)
    keys = {call_key(ABOUT, {"t": 0}), call_key(ABOUT, {"t": 1}), call_key(again, {"t": 0}), call_key(other, {"t": 0})}
    assert len(keys) == 4
    assert ABOUT.key() == again.key()


def test_passing_failures_are_tried_again_and_every_try_is_kept():
    cache = CallCache()
    asking, slept = caller(cache=cache)
    assert asking.call(ABOUT, {}, sender(BROKEN, BUSY, GOOD)) is GOOD
    assert cache.rows == ["api_error", "api_error", "ok"]
    assert 0.25 <= slept[0] <= 0.5  # half to all of 0.5 s
    assert 3.0 <= slept[1] <= 3.5  # as the server asked


def test_failures_are_never_taken_for_known():
    cache = CallCache()
    asking, _ = caller(cache=cache, max_retries=0)
    refused = ChatReply("refusal", "no")
    assert asking.call(ABOUT, {}, sender(refused)) is refused
    assert asking.call(ABOUT, {}, sender(GOOD)) is GOOD


def test_retries_end():
    asking, slept = caller(max_retries=2)
    assert asking.call(ABOUT, {}, sender(BROKEN, BROKEN, BROKEN)) is BROKEN
    assert len(slept) == 2


def test_lasting_failures_are_not_tried_again():
    bad_request = ChatReply("api_error", "400")
    assert caller()[0].call(ABOUT, {}, sender(bad_request)) is bad_request


def test_a_requested_wait_counts_as_a_try():
    asking, slept = caller(max_retries=3)
    assert asking.call(ABOUT, {}, sender(BUSY, BUSY, BUSY, GOOD)) is GOOD
    assert len(slept) == 3
    asking, slept = caller(max_retries=3)
    assert asking.call(ABOUT, {}, sender(*[BUSY] * 4)) is BUSY
    assert len(slept) == 3


def test_a_long_wait_is_reported_once_with_its_reason():
    told = []
    busy = ChatReply("api_error", "429: too many\nrequests", transient=True, limited=True, retry_after_seconds=60.0)
    asking = Caller(
        max_retries=2,
        sleep=lambda seconds: None,
        rate_limiter=RateLimiter(tell=told.append, sleep=lambda seconds: None),
    )
    asking.rate_limiter.slow_down = lambda seconds: None
    asking.call(ABOUT, {}, sender(busy, GOOD))
    assert len(told) == 1
    assert told[0].startswith("no call to the model for 1:0")
    assert told[0].endswith(": 429: too many requests; then try 2 of 3 (max_retries)")
    asking.call(ABOUT, {"x": 1}, sender(busy, GOOD))  # within the same minute
    assert len(told) == 1


def test_a_failure_that_all_calls_share_is_raised():
    def send():
        raise JudgeError("no such model")

    with pytest.raises(JudgeError, match="no such model"):
        caller()[0].call(ABOUT, {}, send)


def test_a_call_that_the_budget_forbids_is_not_made():
    class Empty:
        def reserve(self, request, context):
            raise BudgetError("spent")

    with pytest.raises(BudgetError):
        caller(budget=Empty())[0].call(ABOUT, {}, sender())


def test_backoff_doubles_up_to_a_limit():
    for attempt, longest in [(1, 0.5), (2, 1.0), (3, 2.0), (40, 30.0)]:
        assert longest / 2 <= backoff(attempt, None) <= longest


def test_questions_of_different_kinds_differ():
    asked = [Comparison("p", "a", "b"), Comparison("p", "b", "a"), Listing("p", ("a", "b")), Rating("p", "a")]
    assert len({question_key(question) for question in asked}) == 4


def test_tokens_are_estimated_from_all_texts_of_a_request():
    # "abcdef" 6 // 3 + 4 = 6; "ä" is 2 bytes: 0 + 4 = 4; numbers are none
    assert estimated_tokens({"messages": [{"content": "abcdef"}, "ä"], "max_tokens": 5}) == 10


def test_the_same_call_in_several_threads_is_made_once():
    cache, begun, go, sent = CallCache(), threading.Event(), threading.Event(), []

    def send():
        sent.append(1)
        begun.set()
        assert go.wait(10)
        return GOOD

    asking, _ = caller(cache=cache)
    with ThreadPoolExecutor(8) as pool:
        told = [pool.submit(asking.call, ABOUT, {}, send) for _ in range(8)]
        assert begun.wait(10)
        other = asking.call(ABOUT, {"another": 1}, sender(GOOD))  # another call does not wait for it
        go.set()
        assert [one.result() for one in told] == [GOOD] * 8
    assert (other, len(sent), cache.rows) == (GOOD, 1, ["ok", "ok"])


def test_threads_that_wait_for_another_s_call_get_its_error():
    begun, go = threading.Event(), threading.Event()

    def send():
        begun.set()
        assert go.wait(10)
        raise JudgeError("no such model")

    asking, _ = caller()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(asking.call, ABOUT, {}, send)
        assert begun.wait(10)
        second = pool.submit(asking.call, ABOUT, {}, sender())  # an empty sender would raise IndexError
        time.sleep(0.05)
        go.set()
        for told in (first, second):
            with pytest.raises(JudgeError, match="no such model"):
                told.result()
    assert asking.call(ABOUT, {}, sender(GOOD)) is GOOD  # and the next asking is its own
