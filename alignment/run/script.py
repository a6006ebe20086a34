"""How a recipe script ends: a message instead of a traceback, and the right exit code."""

import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable

from alignment.errors import AlignmentError
from alignment.run.files import disk_is_full
from alignment.run.signals import SIGNALS, Terminated, end_on_signals
from alignment.run.tracking import end_all

INTERRUPTED = 130  # 128 + SIGINT, what shells report

NO_BARS = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")  # read when a library is imported
BARS = {  # what turns off the bars of one that is imported already
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
    """Run `main`; on a user's error, or when told to end, print a message alone and exit with the right code."""
    _hush()
    try:
        end_on_signals()
        main()
    except AlignmentError as error:
        print(error, file=sys.stderr)  # noqa: T201
        code = error.exit_code
    except Terminated as told:
        if os.environ.get("RANK", "0") == "0":
            print(told, file=sys.stderr)  # noqa: T201
        _tell_launcher()
        code = int(told.code or 0)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)  # noqa: T201
        code = INTERRUPTED
    except Exception as error:
        message = _not_ours(error)
        if message is None:
            raise
        print(message, file=sys.stderr)  # noqa: T201
        code = 1
    else:
        return
    end_all(code)
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of judges or loaders may still be waiting on a socket; the user has been told all there is to tell.
    os._exit(code)


def _hush() -> None:
    """Keep the libraries' bars to terminals, and their warnings to the main process: each thing is said once."""
    main = os.environ.get("RANK", "0") == "0"
    # DeepSpeed warns of a machine without a GPU in every process that only imports it.
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
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
    """Have torchrun end too: it would start the workers again, as after a crash. It then tells them a second time."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("LOCAL_RANK") == "0":
        os.kill(os.getppid(), signal.SIGTERM)


def _not_ours(error: Exception) -> str | None:
    """What to tell of an error that comes out of a library, and that the user can mend all the same."""
    if disk_is_full(error):
        again = "free some and run the same command again: it goes on from the last whole checkpoint"
        return f"no room left on the disk; {again} ({error})"
    return None
