"""Concurrent calls of a judge or a writer."""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Protocol, TypeVar

from alignment.errors import JudgeError

Q = TypeVar("Q")
A = TypeVar("A")
Q_contra = TypeVar("Q_contra", contravariant=True)
A_co = TypeVar("A_co", covariant=True)
AHEAD = 2  # questions queued per thread, so that no thread idles while verdicts are processed


class Answering(Protocol[Q_contra, A_co]):
    """A judge or a writer; several threads share one."""

    def ask(self, question: Q_contra, /) -> A_co:
        """Answer one question."""
        ...


def ask_all(
    judge: Answering[Q, A], questions: Iterable[Q], *, max_concurrency: int
) -> Generator[list[tuple[Q, A]], None, None]:
    """Yield answers in batches as they arrive, in the order of arrival.

    The threads are daemons, so a program that ends early, for example by Ctrl-C, waits for no call. An error of the
    judge, or a `JudgeError` thrown into the generator, waits for the calls in flight, because they are paid for.

    Args:
        max_concurrency: number of threads.

    Raises: any error of `judge.ask`, after the verdicts that arrived before it.
    """
    todo: queue.SimpleQueue[Q | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[Q, A] | BaseException] = queue.SimpleQueue()
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


def _end(stop: threading.Event, todo: "queue.SimpleQueue[Q | None]", threads: list[threading.Thread]) -> None:
    """Stop the threads before their next question."""
    stop.set()
    for _ in threads:
        todo.put(None)


def _work(
    judge: Answering[Q, A],
    todo: "queue.SimpleQueue[Q | None]",
    done: "queue.SimpleQueue[tuple[Q, A] | BaseException]",
    stop: threading.Event,
) -> None:
    while (question := todo.get()) is not None and not stop.is_set():
        try:
            done.put((question, judge.ask(question)))
        except BaseException as error:  # raised again in the calling thread
            done.put(error)


def _finished(done: "queue.SimpleQueue[tuple[Q, A] | BaseException]") -> list[tuple[Q, A] | BaseException]:
    """Wait for one outcome, and return it with all others that are available."""
    outcomes = [done.get()]
    while True:
        try:
            outcomes.append(done.get_nowait())
        except queue.Empty:
            return outcomes
