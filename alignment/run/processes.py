"""A stage as a process of its own: logged, watched, and ended with everything it started."""

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

GRACE_SECONDS = 1.2  # between asking a stage to end and ending it
POLL_SECONDS = 0.25
INTERRUPTED = 128 + signal.SIGINT
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Terminated(BaseException):
    """The process was told to end by a signal other than Ctrl-C's."""

    def __init__(self, number: int) -> None:
        """Keep the signal's number."""
        self.number = number


def module_command(arguments: Sequence[str], *, launch: str | None = None, accelerate: str | None = None) -> list[str]:
    """Return the command that runs `python -m ARGUMENTS`, under a launcher where one is named."""
    if launch:
        return [*shlex.split(launch), "-m", *arguments]
    if accelerate:
        return [sys.executable, "-m", "accelerate.commands.launch", "--config_file", accelerate, "-m", *arguments]
    return [sys.executable, "-m", *arguments]


def run_logged(command: Sequence[str], log: Path, tick: Callable[[], None]) -> int:
    """Run a command with its output appended to a log, calling `tick` every quarter second.

    The command gets a process group of its own. Whatever ends this function ends the group: first as Ctrl-C does, then
    by force.

    Returns: the exit code as a shell tells it, 128 + N for signal N.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent if LIBC else None,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            while True:
                try:
                    code = child.wait(timeout=POLL_SECONDS)
                    return code if code >= 0 else 128 - code
                except subprocess.TimeoutExpired:
                    tick()
        finally:
            _end(child)


def _end_with_parent() -> None:
    """Have the kernel end the stage where `alignment run` is killed and cannot."""
    assert LIBC is not None
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(child: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError, subprocess.TimeoutExpired):
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGINT)
            child.wait(timeout=GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)  # the group outlives its leader while any of its processes runs
    child.wait()


@contextlib.contextmanager
def ending_on_signals() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM and SIGHUP, so that a stage is not left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated(number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def tail(log: Path, lines: int) -> list[str]:
    """Return a log's last lines; of a progress bar that redraws itself, its last state."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 65_536))
        text = file.read().decode(errors="replace")
    drawn = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return [line for line in drawn if line][-lines:]
