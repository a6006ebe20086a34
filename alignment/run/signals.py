"""Being told to end: SIGTERM and SIGUSR1, which schedulers send before they take a machine away.

Whoever computes between two safe points defers the end to the next one; everybody else ends where he is. Both end with
`PREEMPTED`, on which a job script queues the same command again.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

PREEMPTED = 128 + signal.SIGTERM  # 143: what a process ended by SIGTERM reports; Kubeflow restarts on 128 and above
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Terminated(SystemExit):
    """The process was told to end by a signal other than Ctrl-C's."""

    def __init__(self, number: int, left: str = "where it was") -> None:
        """Keep the signal's number, and what the same command goes on from."""
        super().__init__(PREEMPTED if number in SIGNALS else 128 + number)
        self.number, self.left = number, left

    def __str__(self) -> str:
        return f"ended by {signal.Signals(self.number).name}; the same command goes on from {self.left}"


class _Asked:
    """What this process was told."""

    number: int | None = None  # of the signal that came while the end was deferred
    deferred = False


def end_on_signals(numbers: tuple[int, ...] = SIGNALS) -> dict[int, object]:
    """Raise `Terminated` where a signal finds this process, or keep it for whoever defers the end.

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
    """Raise `Terminated` on these signals and where the terminal closes, so that no child is left behind.

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
    """From now on ask `asked` instead of being ended."""
    _Asked.number, _Asked.deferred = None, True


def asked() -> int | None:
    """The signal that asked for an end since `defer`."""
    return _Asked.number


def defer_no_more() -> None:
    """Be ended where a signal comes, as before `defer`."""
    _Asked.deferred = False


def end_if_asked() -> None:
    """End where a signal came since `defer`, and be ended where one comes from here on."""
    defer_no_more()
    if _Asked.number is not None:
        raise Terminated(_Asked.number)
