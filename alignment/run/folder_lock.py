"""A lock on a run's folder: a killed launcher may leave a worker that still saves there."""

import fcntl
import os
import time
import weakref
from pathlib import Path
from typing import Any

from alignment.errors import AlignmentError
from alignment.meter import say

PATIENCE_SECONDS = 60.0  # for a process that saves before it ends
POLL_SECONDS = 0.1
_held: set[tuple[int, int]] = set()  # device and inode of the folders that this process holds


def hold(folder: Path, owner: Any, *, patience: float = PATIENCE_SECONDS) -> None:
    """Lock a folder against other processes while `owner` exists; the lock ends with the process.

    The folder itself is locked, so that nothing is left in it. Where the file system cannot lock it, as NFS cannot,
    nothing is held.

    Raises: AlignmentError if another process holds it and does not end in time.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    place = (os.fstat(descriptor).st_dev, os.fstat(descriptor).st_ino)
    if place in _held or not _locked(descriptor, folder, patience):
        os.close(descriptor)
        return
    _held.add(place)
    weakref.finalize(owner, _let_go, descriptor, place)


def _locked(descriptor: int, folder: Path, patience: float) -> bool:
    begun, told = time.monotonic(), False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() - begun > patience:
                os.close(descriptor)
                raise AlignmentError(
                    f"output_dir {folder}: another process works in this folder; wait for it, or end it, and run the "
                    "same command again."
                ) from None
        except OSError:
            return False
        else:
            return True
        if not told:
            say(f"{folder}: another process works in this folder; waiting up to {patience:.0f} s until it ends")
            told = True
        time.sleep(POLL_SECONDS)


def _let_go(descriptor: int, place: tuple[int, int]) -> None:
    _held.discard(place)
    os.close(descriptor)
