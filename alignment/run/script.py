"""How a recipe script ends: a message instead of a traceback, and the right exit code."""

import os
import sys
from collections.abc import Callable

from alignment.errors import AlignmentError
from alignment.run.files import disk_is_full

INTERRUPTED = 130  # 128 + SIGINT, what shells report


def _unshadow() -> None:
    """Take the scripts' own folder off the path: there `recipes/reward.py` would be imported as the package `reward`.

    Done on import, which every recipe does before it imports `reward`.
    """
    folder = os.path.dirname(os.path.abspath(sys.argv[0])) if sys.argv and sys.argv[0] else ""
    if os.path.isfile(os.path.join(folder, "reward.py")) and sys.path and os.path.abspath(sys.path[0]) == folder:
        del sys.path[0]


_unshadow()


def script(main: Callable[[], None]) -> None:
    """Run `main`; on a user's error print its message alone and exit with its code."""
    try:
        main()
    except AlignmentError as error:
        print(error, file=sys.stderr)  # noqa: T201
        code = error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)  # noqa: T201
        code = INTERRUPTED
    except Exception as error:
        if not disk_is_full(error):
            raise
        message = "no room left on the disk; free some and run the same command again: it goes on from the last whole"
        print(f"{message} checkpoint ({error})", file=sys.stderr)  # noqa: T201
        code = 1
    else:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of judges or loaders may still be waiting on a socket; the user has been told all there is to tell.
    os._exit(code)
