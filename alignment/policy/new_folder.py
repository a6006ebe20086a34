"""A model's folder that appears whole or not at all."""

import ctypes
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignment.errors import ModelError
from alignment.policy.saved_files import WHOLE, mark_of

REPORT = "merge.json"
AT_CWD, EXCHANGE = -100, 2  # of Linux's renameat2


def require_free(out: Path) -> None:
    """Refuse a folder that has something in it.

    Raises: ModelError.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError(f"{out} exists already; name a folder that does not.")


@contextmanager
def beside(out: Path, *, replaces: bool = False) -> Iterator[Path]:
    """Yield a folder that is renamed to `out` at the end, or removed after an error.

    Args:
        replaces: whether it takes the place of a folder that is there, which is then removed.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    except OSError as error:
        raise ModelError(f"{out} cannot be written: {error.strerror}; name another folder.") from error
    try:
        yield folder
        folder.chmod(0o755)
        if replaces:
            _exchange(folder, out)
        else:
            os.replace(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _exchange(new: Path, old: Path) -> None:
    """Swap two folders' names in one step; on a system without such a step in two, between which `old` is missing."""
    swap = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    if swap is not None and swap(AT_CWD, os.fsencode(new), AT_CWD, os.fsencode(old), EXCHANGE) == 0:
        return
    aside = Path(tempfile.mkdtemp(dir=old.parent, prefix=f".{old.name}."))
    os.replace(old, aside)
    os.replace(new, old)
    os.replace(aside, new)


def seal(folder: Path, report: dict[str, Any], name: str = REPORT) -> None:
    """Write a report, `merge.json`, and last `whole.json`, which lists all files of the folder with their hashes."""
    (folder / name).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for file in folder.iterdir():  # safetensors lets the owner alone read its files
        file.chmod(file.stat().st_mode | ((folder / name).stat().st_mode & 0o044))
    mark = mark_of(folder, [file.name for file in folder.iterdir() if file.is_file()])
    (folder / WHOLE).write_text(json.dumps(mark, indent=2) + "\n", encoding="utf-8")
