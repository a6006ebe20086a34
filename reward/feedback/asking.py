"""Concurrent calls of a judge."""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any

from alignment.errors import JudgeError
from alignment.evaluate.judging import Judge, Question, Verdict

Answered = tuple[Question, Verdict]
Outcome = Answered | BaseException
Batches = Generator[list[Answered], None, None]
AHEAD = 2  # questions queued per thread, so that no thread idles while verdicts are processed


def ask_all(judge: Judge[Any], questions: Iterable[Question], *, max_concurrency: int) -> Batches:
    """Yield verdicts in batches as they arrive, in the order of arrival.

    The threads are daemons, so a program that ends early, for example by Ctrl-C, waits for no call. An error of the
    judge, or a `JudgeError` thrown into the generator, waits for the calls in flight, because they are paid for.

    Args:
        max_concurrency: number of threads.

    Raises: any error of `judge.ask`, after the verdicts that arrived before it.
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
            answered = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
            if answered:
                yield answered
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
    except JudgeError:
        _end(stop, todo, threads)
        for thread in threads:
            thread.join()
        raise
    finally:
        _end(stop, todo, threads)


def _end(stop: threading.Event, todo: "queue.SimpleQueue[Question | None]", threads: list[threading.Thread]) -> None:
    """Stop the threads before their next question."""
    stop.set()
    for _ in threads:
        todo.put(None)


def _work(
    judge: Judge[Any],
    todo: "queue.SimpleQueue[Question | None]",
    done: "queue.SimpleQueue[Outcome]",
    stop: threading.Event,
) -> None:
    while (question := todo.get()) is not None and not stop.is_set():
        try:
            done.put((question, judge.ask(question)))
        except BaseException as error:  # raised again in the calling thread
            done.put(error)


def _finished(done: "queue.SimpleQueue[Outcome]") -> list[Outcome]:
    """Wait for one outcome, and return it with all others that are available."""
    outcomes = [done.get()]
    while True:
        try:
            outcomes.append(done.get_nowait())
        except queue.Empty:
            return outcomes
