"""The end of a recipe script: a message instead of a traceback, and the exit code."""

import argparse
import contextlib
import errno
import io
import logging
import os
import select
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence

from alignment.errors import AlignmentError, Done
from alignment.run.files import disk_is_full
from alignment.run.last_resort import UNEXPECTED, keep_tracebacks_in, report, reporting_threads
from alignment.run.signals import SIGNALS, Terminated, end_on_signals
from alignment.run.tracking import end_all
from alignment.strict_json import shown

INTERRUPTED = 130  # 128 + SIGINT, what shells report
NOBODY_READS = 141  # 128 + SIGPIPE, the same

REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR)
# Loggers that warn on import alone: DeepSpeed about a machine without a GPU, bitsandbytes about a CPU kernel on the Hub
# that is not used here.
HUSHED = ("DeepSpeed", "bitsandbytes.backends.cpu.ops")
NO_BARS = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")  # read when a library is imported
NO_MEMORY = ("CUDA out of memory", "can't allocate memory", "HIP out of memory", "MPS backend out of memory")
BARS = {  # functions that turn off the progress bars of an imported library
    "transformers.utils.logging": "disable_progress_bar",
    "datasets.utils.tqdm": "disable_progress_bars",
    "huggingface_hub.utils.tqdm": "disable_progress_bars",
}


def _unshadow() -> None:
    """Take the scripts' own folder off the path: there `recipes/reward.py` would be imported as the package `reward`.

    Done on import, which every recipe does before it imports `reward`.
    """
    folder = os.path.dirname(os.path.abspath(sys.argv[0])) if sys.argv and sys.argv[0] else ""
    if os.path.isfile(os.path.join(folder, "reward.py")) and sys.path and os.path.abspath(sys.path[0]) == folder:
        del sys.path[0]


_unshadow()


def script(main: Callable[[], None]) -> None:
    """Run `main`; on an error or a signal, print one message and exit with its code.

    `sys.exit(0)` is an error: if a recipe's function or a library calls it, the run is not finished.
    """
    keep_tracebacks_in(None)  # until a run's folder is open
    try:
        with reporting_threads():
            _hush()
            _take_over_interrupts()
            end_on_signals()
            main()
    except Done:
        raise
    except KeyboardInterrupt:
        code = _tell("interrupted; the same command resumes from the last checkpoint", INTERRUPTED)
    except Terminated as told:
        if os.environ.get("RANK", "0") == "0":
            _tell(told, 0)
        _tell_launcher()
        code = int(told.code or 0)
    except SystemExit as error:
        if error.code:
            raise
        code = _tell(f"{_place_of(error)} called sys.exit(0) before the work was done; remove that call.", 1)
    except AlignmentError as error:
        code = _tell(error, error.exit_code)
    except BaseException as error:
        code = _unforeseen(error)
    else:
        return
    end_all(code)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    # Threads of judges or loaders may still wait on a socket; the message is printed, so do not wait for them.
    os._exit(code)


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line inside `script`, where `--help` may end with 0."""
    try:
        return parser.parse_args(argv)
    except SystemExit as told:
        if told.code:
            raise
        raise Done from None


def _tell(message: object, code: int) -> int:
    with contextlib.suppress(OSError, ValueError):
        print(message, file=sys.stderr)  # noqa: T201
    return code


def _unforeseen(error: BaseException) -> int:
    """Print one line about an unexpected error; return the exit code."""
    if isinstance(error, BrokenPipeError) and _nobody_reads():
        return NOBODY_READS
    message = _not_ours(error)
    return _tell(message, 1) if message is not None else _tell(report(error), UNEXPECTED)


def _nobody_reads() -> bool:
    """Whether standard output goes to a program that has ended, as in `alignment score ... | head`."""
    try:
        pipe = sys.stdout.fileno()
    except (OSError, ValueError):
        return False
    watch = select.poll()
    watch.register(pipe, 0)  # errors alone, and a pipe without a reader is one
    return any(event & select.POLLERR for _, event in watch.poll(0))


def _place_of(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "some code"


def _take_over_interrupts() -> None:
    """Make Ctrl-C raise KeyboardInterrupt; `alignment.cli` sets another handler while it parses."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _hush() -> None:
    """Show the libraries' progress bars on terminals only, and their warnings in the main process only."""
    main = os.environ.get("RANK", "0") == "0"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name or a text that the terminal's encoding does not have
            stream.reconfigure(errors="backslashreplace")
    logging.raiseExceptions = False  # a log line that cannot be written prints no traceback
    for name in HUSHED:
        logging.getLogger(name).addFilter(lambda record: record.levelno >= logging.ERROR)
    if not main:
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
    if main and sys.stderr.isatty():
        return
    os.environ |= {name: os.environ.get(name, "1") for name in NO_BARS}
    for module, name in BARS.items():
        if module in sys.modules:
            getattr(sys.modules[module], name)()


def _tell_launcher() -> None:
    """End torchrun too, which would restart the workers as after a crash. It then signals them a second time."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("LOCAL_RANK") == "0":
        os.kill(os.getppid(), signal.SIGTERM)


def _not_ours(error: BaseException) -> str | None:
    """Return the message for an error of a library that the user can fix; None for other errors."""
    if disk_is_full(error):
        again = "free some and run the same command again: it resumes from the last complete checkpoint"
        return f"no room left on the disk; {again} ({error})"
    if isinstance(error, OSError) and error.filename is not None and error.errno in REFUSED:
        name = shown(os.fsdecode(error.filename), 200)
        return f"{name}: {os.strerror(error.errno)}; name another path, or change what this user may do with it."
    if isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY):
        first = " ".join(str(error).split(". ")[0].split())[:200] or "the machine has none left"
        return (
            f"out of memory: {first}. Lower per_device_train_batch_size or max_length (`alignment plan` computes what "
            "fits), or take a smaller model."
        )
    return None
