"""Ctrl-C while an answer is written: it stops the answer between two tokens, so that the model stays whole."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_kept() -> Iterator[Callable[[], bool]]:
    """Keep the first Ctrl-C, which the yielded function reports; a second one raises KeyboardInterrupt."""
    came = False

    def keep(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came:
            raise KeyboardInterrupt
        came = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, keep)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGINT, before)
