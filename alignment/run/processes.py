"""A stage as a process of its own: logged, watched, and ended with everything it started."""

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from alignment.run.signals import Terminated

GRACE_SECONDS = 1.2  # between asking a stage to end and ending it
SAVING_SECONDS = 600  # the same, where it is to save first; a scheduler that is less patient ends everything itself
# torchrun, and so `accelerate launch`, hands SIGUSR1 on to its workers, and ends them by force only after this. Workers
# that it starts again meet in a store of their own: in the one it shares they would find the dead ones' addresses.
LAUNCHERS = {
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    "PET_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
    "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SAVING_SECONDS),
}
POLL_SECONDS = 0.25
INTERRUPTED = 128 + signal.SIGINT
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def module_command(arguments: Sequence[str], *, launch: str | None = None, accelerate: str | None = None) -> list[str]:
    """Return the command that runs `python -m ARGUMENTS`, under a launcher where one is named."""
    if launch:
        return [*shlex.split(launch), "-m", *arguments]
    if accelerate:
        return [sys.executable, "-m", "alignment.launch.workers", "--config_file", accelerate, "-m", *arguments]
    return [sys.executable, "-m", *arguments]


def run_logged(
    command: Sequence[str], log: Path, tick: Callable[[], None], environment: Mapping[str, str] | None = None
) -> int:
    """Run a command with its output appended to a log, calling `tick` every quarter second.

    The command gets a process group of its own. Whatever ends this function ends the group: first as Ctrl-C does, then
    by force. If this process is asked to end, it first signals the command, which has time to save.

    Args:
        environment: variables that it gets where the user has not set them.

    Returns: the exit code as a shell reports it, 128 + N for signal N.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_begin_stage,
            env={**LAUNCHERS, **(environment or {}), **os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            while True:
                try:
                    code = child.wait(timeout=POLL_SECONDS)
                    return code if code >= 0 else 128 - code
                except subprocess.TimeoutExpired:
                    tick()
        except Terminated:
            _let_save(child)
            raise
        finally:
            _end(child)


def _begin_stage() -> None:
    """Pass signals on to the stage, and make the kernel end it if `alignment run` is killed.

    A background job ignores Ctrl-C, as does what `nohup` starts from a script, and children inherit that.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _let_save(child: "subprocess.Popen[bytes]") -> None:
    """Ask by SIGUSR1: `srun` hands it on, while SIGTERM would have it kill what it started."""
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
        child.send_signal(signal.SIGUSR1)
        child.wait(timeout=SAVING_SECONDS)


def _end(child: "subprocess.Popen[bytes]") -> None:
    workers = _descendants(child)  # a launcher's have sessions of their own, which no signal to the group reaches
    with contextlib.suppress(ProcessLookupError, PermissionError, subprocess.TimeoutExpired):
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGINT)
            child.wait(timeout=GRACE_SECONDS)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)  # the group outlives its leader while any of its processes runs
    for worker in workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
    child.wait()
    psutil.wait_procs(workers, timeout=GRACE_SECONDS)


def _descendants(child: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    try:
        return psutil.Process(child.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def tail(log: Path, lines: int) -> list[str]:
    """Return a log's last lines; of a progress bar that redraws itself, its last state."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 65_536))
        text = file.read().decode(errors="replace")
    drawn = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n")]
    return [line for line in drawn if line][-lines:]
