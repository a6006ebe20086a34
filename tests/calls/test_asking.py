import threading
import time
from collections.abc import Callable

import pytest

from alignment.calls.asking import ask_all
from alignment.errors import JudgeError
from alignment.evaluate.judging import Comparison, Verdict


class FunctionJudge:
    name = "test"
    prompt_hash = "0"
    mode = "pairwise"

    def __init__(self, function: Callable[[Comparison], Verdict]) -> None:
        self.ask = function


def numbered(count: int) -> list[Comparison]:
    return [Comparison("p", str(i), "x") for i in range(count)]


@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_every_question_is_asked_once_with_as_many_at_once_as_allowed(concurrency: int) -> None:
    together = threading.Barrier(concurrency, timeout=60)  # opens only once so many calls are in flight
    lock, inside, most = threading.Lock(), [0], [0]

    def ask(comparison: Comparison) -> Verdict:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        together.wait()
        time.sleep(0.002)
        with lock:
            inside[0] -= 1
        return Verdict(int(comparison.first) / 1000, "ok")

    questions = numbered(4 * concurrency)
    answers = [each for batch in ask_all(FunctionJudge(ask), questions, max_concurrency=concurrency) for each in batch]
    assert sorted(int(question.first) for question, _ in answers) == list(range(4 * concurrency))
    assert all(verdict.probability == int(question.first) / 1000 for question, verdict in answers)
    assert most[0] == concurrency


def test_no_questions_start_no_threads() -> None:
    before = set(threading.enumerate())
    assert list(ask_all(FunctionJudge(lambda c: Verdict(1.0, "ok")), [], max_concurrency=4)) == []
    assert not set(threading.enumerate()) - before


def test_a_judges_error_ends_the_asking_after_what_ended_well() -> None:
    def ask(comparison: Comparison) -> Verdict:
        if comparison.first == "5":
            raise JudgeError("gone")
        return Verdict(1.0, "ok")

    done = []

    def ask_hundred() -> None:
        for batch in ask_all(FunctionJudge(ask), numbered(100), max_concurrency=1):
            done.extend(batch)

    with pytest.raises(JudgeError, match="gone"):
        ask_hundred()
    assert {question.first for question, _ in done} >= {"0", "1", "2", "3", "4"}
    assert len(done) < 20


def test_an_error_waits_for_the_calls_in_flight_since_they_are_paid_for() -> None:
    ended = []

    def ask(comparison: Comparison) -> Verdict:
        if comparison.first == "0":
            raise JudgeError("the budget is used up")
        time.sleep(0.3)
        ended.append(comparison.first)
        return Verdict(1.0, "ok")

    with pytest.raises(JudgeError):
        list(ask_all(FunctionJudge(ask), numbered(50), max_concurrency=4))
    assert 3 <= len(ended) <= 4
    time.sleep(0.5)
    assert len(ended) <= 4  # and no other began


def test_threads_end_with_the_asking() -> None:
    before = set(threading.enumerate())
    asking = ask_all(FunctionJudge(lambda c: Verdict(1.0, "ok")), numbered(30), max_concurrency=8)
    next(asking)
    workers = set(threading.enumerate()) - before
    assert len(workers) == 8
    asking.close()  # the caller stops early
    for worker in workers:
        worker.join(timeout=5)
    assert not any(worker.is_alive() for worker in workers)
