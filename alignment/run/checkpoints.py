"""Which checkpoint of a run is whole."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignment.run.files import naming_the_disk, write_json

WHOLE = "whole.json"


def mark_whole(checkpoint: Path) -> None:
    """List the checkpoint's files and sizes in `whole.json`; written last, so a checkpoint without it is not one."""
    files = {str(p.relative_to(checkpoint)): p.stat().st_size for p in sorted(checkpoint.rglob("*")) if p.is_file()}
    files.pop(WHOLE, None)
    write_json(checkpoint / WHOLE, files)


def is_whole(checkpoint: Path) -> bool:
    """Whether every file listed in `whole.json` is there at its full size."""
    try:
        files = json.loads((checkpoint / WHOLE).read_text())
        return all((checkpoint / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, AttributeError):
        return False


def step_of(checkpoint: Path) -> int:
    """Optimizer steps taken when the checkpoint was written; -1 where the name tells none."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def latest_whole(run: Path) -> Path | None:
    """Return the whole checkpoint with the most steps, or None."""
    found = [path for path in run.glob("checkpoint-*") if step_of(path) >= 0 and is_whole(path)]
    return max(found, key=step_of, default=None)


def broken(run: Path) -> list[Path]:
    """Return the checkpoints that are not whole."""
    return [path for path in run.glob("checkpoint-*") if step_of(path) >= 0 and not is_whole(path)]


@contextmanager
def only_whole_checkpoints(run: Path) -> Iterator[None]:
    """Leave no half-written checkpoint where training ends with an error, and name the disk where it was full."""
    try:
        with naming_the_disk(run):
            yield
    except BaseException:
        for path in broken(run):
            shutil.rmtree(path, ignore_errors=True)
        raise
