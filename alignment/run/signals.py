"""Ending on SIGTERM and SIGUSR1, which schedulers send before they reclaim a machine.

A trainer defers the end to its next safe point; other code ends at once. Both end with `PREEMPTED`, on which a job
script queues the same command again.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PREEMPTED = 128 + signal.SIGTERM  # 143: what a process ended by SIGTERM reports; Kubeflow restarts on 128 and above
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Terminated(SystemExit):
    """A signal other than Ctrl-C's ended the process."""

    def __init__(self, number: int, left: str = "where it was") -> None:
        """Keep the signal's number, and what the same command resumes from."""
        super().__init__(PREEMPTED if number in SIGNALS else 128 + number)
        self.number, self.left = number, left

    def __str__(self) -> str:
        return f"ended by {signal.Signals(self.number).name}; the same command resumes from {self.left}"


class _Asked:
    """The signals of this process."""

    number: int | None = None  # of the signal that came while the end was deferred
    deferred = False


def end_on_signals(numbers: tuple[int, ...] = SIGNALS) -> dict[int, object]:
    """Raise `Terminated` when a signal arrives, or keep the signal if the end is deferred.

    Returns: the handlers before; nothing changes in another thread than the main one, where Python allows no handler.
    """

    def told(number: int, frame: FrameType | None) -> None:
        _Asked.number = number
        if not _Asked.deferred:
            raise Terminated(number)

    _Asked.deferred = False
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, told) for number in numbers}


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Raise `Terminated` on these signals and when the terminal closes, so that no child process remains.

    Under `nohup`, which has the terminal's closing ignored, it stays ignored.
    """
    hangs_up = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN
    before = end_on_signals((*SIGNALS, signal.SIGHUP) if hangs_up else SIGNALS)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


def defer() -> None:
    """Keep signals from now on; `asked` returns them."""
    _Asked.number, _Asked.deferred = None, True


def asked() -> int | None:
    """Return the signal that arrived since `defer`."""
    return _Asked.number


def defer_no_more() -> None:
    """Raise `Terminated` on signals again, as before `defer`."""
    _Asked.deferred = False


def end_if_asked() -> None:
    """Raise `Terminated` if a signal arrived since `defer`, and on later signals."""
    defer_no_more()
    if _Asked.number is not None:
        raise Terminated(_Asked.number)
