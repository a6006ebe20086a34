"""Which checkpoint of a run is whole, and which of them stay."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignment.run.files import flush_to_disk, naming_the_disk, write_json

WHOLE = "whole.json"
STATE = "trainer_state.json"  # transformers' own


def mark_whole(checkpoint: Path) -> None:
    """List the checkpoint's files and sizes in `whole.json`; written last, so a checkpoint without it is not one.

    The files are flushed first: a power cut must not leave a mark on files whose bytes were still in memory.
    """
    files = {str(p.relative_to(checkpoint)): p.stat().st_size for p in sorted(checkpoint.rglob("*")) if p.is_file()}
    files.pop(WHOLE, None)
    for name in files:
        flush_to_disk(checkpoint / name)
    write_json(checkpoint / WHOLE, files)


def is_whole(checkpoint: Path) -> bool:
    """Whether every file listed in `whole.json` is there at its full size."""
    try:
        files = json.loads((checkpoint / WHOLE).read_text())
        return bool(files) and all((checkpoint / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, AttributeError):
        return False


def step_of(checkpoint: Path) -> int:
    """Optimizer steps taken when the checkpoint was written; -1 where the name tells none."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def best_of(checkpoint: Path) -> Path | None:
    """Return the best checkpoint of its run when this one was written, in the folder where the run now is."""
    try:
        best = json.loads((checkpoint / STATE).read_text()).get("best_model_checkpoint")
    except (OSError, ValueError, AttributeError):
        return None
    return checkpoint.parent / Path(best).name if best else None


def latest_whole(run: Path, *, with_best: bool = False) -> Path | None:
    """Return the whole checkpoint with the most steps, or None.

    Args:
        with_best: only one whose best checkpoint is whole too, for a run that is to end with the best.
    """
    found = [path for path in _checkpoints(run) if is_whole(path)]
    if with_best:
        found = [path for path in found if (best := best_of(path)) is None or is_whole(best)]
    return max(found, key=step_of, default=None)


def broken(run: Path) -> list[Path]:
    """Return the checkpoints that are not whole."""
    return [path for path in _checkpoints(run) if not is_whole(path)]


def rotate(run: Path, kept: int | None, best: str | None) -> None:
    """Delete whole checkpoints but the newest `kept` (None: all stay) and the best."""
    whole = sorted((path for path in _checkpoints(run) if is_whole(path)), key=step_of)
    names = {path.name for path in whole[-kept:]} if kept else {path.name for path in whole}
    if best is not None and kept:
        names.add(Path(best).name)
    for path in whole:
        if path.name not in names:
            shutil.rmtree(path)


def _checkpoints(run: Path) -> list[Path]:
    return [path for path in run.glob("checkpoint-*") if step_of(path) >= 0 and path.is_dir()]


@contextmanager
def only_whole_checkpoints(run: Path) -> Iterator[None]:
    """Leave no half-written checkpoint where training ends with an error, and name the disk where it was full.

    The main process alone clears up: to another, a checkpoint that the main one is about to mark looks half-written.
    """
    try:
        with naming_the_disk(run):
            yield
    except BaseException:
        for path in broken(run) if os.environ.get("RANK", "0") == "0" else []:
            shutil.rmtree(path, ignore_errors=True)
        raise
