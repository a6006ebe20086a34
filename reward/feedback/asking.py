"""Asking a judge many questions at once."""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any

from alignment.errors import JudgeError
from alignment.evaluate.judging import Judge, Question, Verdict

Answered = tuple[Question, Verdict]
Outcome = Answered | BaseException
Batches = Generator[list[Answered], None, None]
AHEAD = 2  # questions waiting per thread, so that none idles while verdicts are being read


def ask_all(judge: Judge[Any], questions: Iterable[Question], *, max_concurrency: int) -> Batches:
    """Yield verdicts in batches, as soon as there are any, in the order in which they come.

    The threads are daemons: a program that ends early, by Ctrl-C say, waits for no answer. An error of the judge does
    wait for the calls in flight, since they are paid for; so does a `JudgeError` thrown into the generator.

    Raises: whatever `judge.ask` raises, after yielding the verdicts that had come by then.
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
    """Let no thread begin another question."""
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
        except BaseException as error:  # raised anew in the asking thread
            done.put(error)


def _finished(done: "queue.SimpleQueue[Outcome]") -> list[Outcome]:
    """Wait for one outcome and take all that are there."""
    outcomes = [done.get()]
    while True:
        try:
            outcomes.append(done.get_nowait())
        except queue.Empty:
            return outcomes
