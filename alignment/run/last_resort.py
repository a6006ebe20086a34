"""The last resort: an error that no code expects becomes one line on stderr, and its traceback a file."""

import os
import re
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignment.secrecy import hidden

UNEXPECTED = 70  # EX_SOFTWARE of sysexits.h
LOG = "error.log"
ELSEWHERE = "alignment-error.log"  # where no run folder is known
LOGS = re.compile(r"error(-rank\d+)?\.log")  # all names that a run folder may have
SHOWN = 300  # characters of an error's own text
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
SHORTEST_SECRET = 8  # characters; a shorter value may be part of ordinary text


class _Place:
    """Where this process writes tracebacks."""

    folder: Path | None = None


def keep_tracebacks_in(folder: Path | None) -> None:
    """Write the traceback of an unexpected error into this folder; None: into the working folder."""
    _Place.folder = folder


def report(error: BaseException, where: str = "") -> str:
    """Write an error's traceback to a file.

    Args:
        where: the thread that raised the error; empty in the main thread.

    Returns: one line that names the error, its place and the file.
    """
    text = _without_secrets("".join(traceback.format_exception(error)))
    if os.environ.get("ALIGNMENT_TRACEBACK", "0") not in ("", "0"):
        sys.stderr.write(text)
    file = _write(text)
    place = f"; the traceback is in {file}" if file else "; no file for the traceback could be written"
    what = _without_secrets(" ".join(f"{type(error).__name__}: {error}".split())).rstrip(":")
    what = what if len(what) <= SHOWN else f"{what[:SHOWN]}…"
    return f"unexpected error{where}: {what} ({_frame(error)}){place}. Please report it as a fault of this program."


@contextmanager
def reporting_threads() -> Iterator[None]:
    """Report what ends a thread in one line as well."""

    def ended(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None:
            name = args.thread.name if args.thread is not None else "unknown"
            sys.stderr.write(f"{report(args.exc_value, f' in thread {name}')}\n")

    before, threading.excepthook = threading.excepthook, ended
    try:
        yield
    finally:
        threading.excepthook = before


def _write(text: str) -> Path | None:
    rank = os.environ.get("RANK", "0")
    moment = time.strftime("%Y-%m-%d %H:%M:%S")
    log = LOG if rank == "0" else f"error-rank{rank}.log"
    own = [_Place.folder / log] if _Place.folder is not None else []
    for file in (*own, Path(ELSEWHERE), Path(tempfile.gettempdir(), ELSEWHERE)):
        try:
            with file.open("a", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(f"{moment}, process {os.getpid()}, rank {rank}\n{text}\n")
        except OSError:
            continue
        return file
    return None


def _frame(error: BaseException) -> str:
    """File and line of the innermost frame of the project, else of all frames."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "no place known"
    root = str(Path(__file__).resolve().parents[2])
    own = [frame for frame in frames if frame.filename.startswith((f"{root}/alignment", f"{root}/reward"))]
    frame = (own or frames)[-1]
    return f"{frame.filename.removeprefix(f'{root}/')}:{frame.lineno}"


def _without_secrets(text: str) -> str:
    """Replace the values of environment variables with names of secrets, and texts that look like keys."""
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) >= SHORTEST_SECRET:
            text = text.replace(value, f"<{name}>")
    return hidden(text)
