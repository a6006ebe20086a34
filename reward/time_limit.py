"""A time limit on code of the user, such as a reward function."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TypeVar

T = TypeVar("T")
AGAIN = 1.0  # seconds after which code that swallows the exception gets it again
MOST = 10  # times; then the process ends
LATE = 2.0  # seconds beyond the limit after which a result that comes all the same is not taken


class Expired(BaseException):
    """The limit is over; no `except Exception` of the code inside catches it."""


def call_within(seconds: float, function: Callable[[], T]) -> T:
    """Call a function, and interrupt it at the limit.

    In the main thread a signal interrupts it: Python code, sleeping, waiting for the network, regular expressions.
    Code in C that handles no signals is not interrupted. In another thread, the function goes on in a thread that the
    process does not wait for.

    Raises: Expired at the limit; what the function raises.
    """
    if threading.current_thread() is not threading.main_thread():
        return _in_thread(seconds, function)
    started = time.monotonic()
    with _alarm(seconds):
        found = function()
    if time.monotonic() - started > seconds + LATE:
        raise Expired
    return found


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise `Expired` in the main thread after some seconds.

    The timer of `signal.setitimer` interrupts regular expressions too, which hold the interpreter's lock. Code inside
    that uses this timer itself (`signal.alarm`) ends ours, so that a thread sends the signal as well.
    """
    over = threading.Event()

    def expire(number: int, frame: FrameType | None) -> None:
        if not over.is_set():
            raise Expired

    def send() -> None:
        main = threading.main_thread().ident
        while main is not None and not over.wait(seconds if not sent else AGAIN):
            sent.append(True)
            if len(sent) > MOST:
                sys.stderr.write(f"error: code went on after its time limit of {seconds:g} s; it catches everything\n")
                sys.stderr.flush()
                os._exit(1)
            signal.pthread_kill(main, signal.SIGALRM)

    sent: list[bool] = []
    before = signal.signal(signal.SIGALRM, expire)
    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        over.set()
        signal.setitimer(signal.ITIMER_REAL, 0)
        thread.join()
        signal.signal(signal.SIGALRM, before)


def _in_thread(seconds: float, function: Callable[[], T]) -> T:
    found: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            found.append(function())
        except BaseException as fault:  # raised again in the thread that called
            raised.append(fault)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not found:
        raise Expired
    return found[0]
