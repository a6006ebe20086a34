"""Asking a judge many questions at once."""

import queue
import threading
import time
from collections.abc import Iterable, Iterator

from alignment.evaluate.judging import Comparison, Judge
from reward.feedback.store import Call

Question = tuple[Comparison, str]  # what to ask, and the order it shows: "first" or "swapped"
Outcome = Call | BaseException
AHEAD = 2  # questions waiting per thread, so that none idles while finished calls are being stored


def ask_all(judge: Judge, questions: Iterable[Question], *, max_concurrency: int) -> Iterator[list[Call]]:
    """Yield finished calls in batches, as soon as there are any, in the order in which they end.

    The threads are daemons: a program that ends early, by Ctrl-C say, waits for no answer.

    Raises: whatever `judge.ask` raises, after yielding the calls that had ended well.
    """
    todo: queue.SimpleQueue[Question | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    stop = threading.Event()
    threads: list[threading.Thread] = []
    waiting = iter(questions)
    pending = 0
    try:
        while True:
            while pending < AHEAD * max_concurrency and (question := next(waiting, None)) is not None:
                todo.put(question)
                pending += 1
                if len(threads) < min(pending, max_concurrency):
                    threads.append(threading.Thread(target=_work, args=(judge, todo, done, stop), daemon=True))
                    threads[-1].start()
            if pending == 0:
                return
            outcomes = _finished(done)
            pending -= len(outcomes)
            calls = [outcome for outcome in outcomes if isinstance(outcome, Call)]
            if calls:
                yield calls
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
    finally:
        stop.set()
        for _ in threads:
            todo.put(None)


def _work(
    judge: Judge,
    todo: "queue.SimpleQueue[Question | None]",
    done: "queue.SimpleQueue[Outcome]",
    stop: threading.Event,
) -> None:
    while (question := todo.get()) is not None and not stop.is_set():
        comparison, shown = question
        asked_at, start = time.time(), time.perf_counter()
        try:
            verdict = judge.ask(comparison)
        except BaseException as error:  # raised anew in the asking thread
            done.put(error)
        else:
            done.put(Call(comparison, shown, verdict, time.perf_counter() - start, asked_at))


def _finished(done: "queue.SimpleQueue[Outcome]") -> list[Outcome]:
    """Wait for one outcome and take all that are there."""
    outcomes = [done.get()]
    while True:
        try:
            outcomes.append(done.get_nowait())
        except queue.Empty:
            return outcomes
