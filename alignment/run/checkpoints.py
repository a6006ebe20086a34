"""The checkpoints of a run: which are complete, and which are kept."""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alignment.errors import AlignmentError
from alignment.manifest import how_anew
from alignment.policy.saved_files import WHOLE, Damaged, is_marked, mark_of, read_mark, require_saved
from alignment.run.files import flush_to_disk, naming_the_disk, write_json
from alignment.strict_json import shown

STATE = "trainer_state.json"  # transformers' own
ASIDE = "damaged-"  # prefix of a damaged checkpoint, which is kept but not resumed from


def new_identifier() -> str:
    """Return an identifier of a run, which its checkpoints carry."""
    return secrets.token_hex(8)


def mark_whole(checkpoint: Path, run: str | None = None) -> None:
    """List the checkpoint's files in `whole.json`; it is written last, so a checkpoint without it is incomplete.

    The files are flushed first: a power cut must not leave a mark on files whose bytes were still in memory.

    Args:
        run: identifier of the run that wrote them.
    """
    files = {str(file.relative_to(checkpoint)) for file in checkpoint.rglob("*") if file.is_file()} - {WHOLE}
    for name in sorted(files):
        flush_to_disk(checkpoint / name)
    write_json(checkpoint / WHOLE, mark_of(checkpoint, files, step=max(0, step_of(checkpoint)), run=run))


def is_whole(checkpoint: Path) -> bool:
    """Whether every file listed in `whole.json` exists with its full size; the bytes are not read."""
    try:
        mark = read_mark(checkpoint)
        require_saved(checkpoint, mark.files if mark else {}, hash_of=None)
    except Damaged:
        return False
    return mark is not None


def require_sound(checkpoint: Path, run: str | None = None) -> None:
    """Compare all bytes of a checkpoint with its `whole.json`, and that with the folder's step and run.

    Raises: Damaged naming the file and what differs.
    """
    mark = read_mark(checkpoint)
    if mark is None:
        raise Damaged(f"{WHOLE} is missing")
    if mark.step is not None and mark.step != step_of(checkpoint):
        raise Damaged(f"{WHOLE} is of step {mark.step}: the folder was renamed, or its files are another checkpoint's")
    if mark.run is not None and run is not None and mark.run != run:
        raise Damaged(f"{WHOLE} is of another run ({shown(mark.run)}, this one is {shown(run)})")
    require_saved(checkpoint, mark.files)


def step_of(checkpoint: Path) -> int:
    """Return the optimizer step of a checkpoint; -1 if its name has none."""
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isascii() and number.isdigit() and str(int(number)) == number else -1


def best_of(checkpoint: Path) -> Path | None:
    """Return the run's best checkpoint at the time this one was written, in the run's present folder."""
    try:
        best = json.loads((checkpoint / STATE).read_text(encoding="utf-8")).get("best_model_checkpoint")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return checkpoint.parent / Path(best).name if best and isinstance(best, str) else None


def latest_whole(run: Path, *, with_best: bool = False) -> Path | None:
    """Return the whole checkpoint with the most steps, or None.

    Args:
        with_best: only one whose best checkpoint is whole too, for a run that is to end with the best.
    """
    found = [path for path in checkpoints(run) if is_whole(path)]
    if with_best:
        found = [path for path in found if (best := best_of(path)) is None or is_whole(best)]
    return max(found, key=step_of, default=None)


def settle(run: Path, identifier: str | None, *, with_best: bool, say: Callable[[str], None]) -> Path | None:
    """Return the checkpoint to resume from, the newest undamaged one; None if none was saved.

    Checkpoints that were cut off while they were written are removed; damaged ones newer than the one found are kept
    under another name, for their steps are taken again.

    Args:
        identifier: of the run. with_best: the best checkpoint must be complete too. say: prints one line.

    Raises: AlignmentError if there are checkpoints and none is sound.
    """
    for path in cut_off(run):
        say(f"{path}: incomplete, as its writing was interrupted; it is removed")
        remove(path)
    found, faults = _newest_sound(run, identifier, with_best)
    if found is None:
        if faults:
            path, fault = next(iter(faults.items()))
            raise AlignmentError(
                f"{path}: {fault}, and no older checkpoint is undamaged. Restore a copy of it, or {how_anew(run)}."
            )
        return None
    for path, fault in faults.items():
        say(f"{path}: {fault}; it is kept as {_set_aside(path).name}, and the run resumes from {found.name}")
    return found


def _newest_sound(run: Path, identifier: str | None, with_best: bool) -> tuple[Path | None, dict[Path, str]]:
    """Return the newest undamaged checkpoint, and the fault of each newer one."""
    faults: dict[Path, str] = {}
    for path in sorted(checkpoints(run), key=step_of, reverse=True):
        try:
            require_sound(path, identifier)
            best = best_of(path) if with_best else None
            if best not in (None, path):
                _require_best(best, identifier)
        except Damaged as fault:
            faults[path] = str(fault)
        else:
            return path, faults
    return None, faults


def _require_best(best: Path | None, identifier: str | None) -> None:
    assert best is not None
    try:
        require_sound(best, identifier)
    except Damaged as fault:
        raise Damaged(f"its best checkpoint is {best.name}, and there {fault}") from None


def _set_aside(checkpoint: Path) -> Path:
    names = (f"{ASIDE}{checkpoint.name}{'' if number == 1 else f'.{number}'}" for number in range(1, 10**6))
    aside = next(path for path in map(checkpoint.with_name, names) if not os.path.lexists(path))
    with naming_the_disk(aside):
        checkpoint.rename(aside)
    return aside


def cut_off(run: Path) -> list[Path]:
    """Return the incomplete checkpoints."""
    return [path for path in checkpoints(run) if not is_marked(path)]


def remove(checkpoint: Path) -> None:
    """Delete a checkpoint, `whole.json` first: after a kill it is incomplete, not damaged."""
    if checkpoint.is_symlink():
        checkpoint.unlink()
        return
    (checkpoint / WHOLE).unlink(missing_ok=True)
    shutil.rmtree(checkpoint)


def rotate(run: Path, kept: int | None, best: str | None) -> None:
    """Delete complete checkpoints except the newest `kept` (None: all) and the best."""
    whole = sorted((path for path in checkpoints(run) if is_whole(path)), key=step_of)
    names = {path.name for path in whole[-kept:]} if kept else {path.name for path in whole}
    if best is not None and kept:
        names.add(Path(best).name)
    for path in whole:
        if path.name not in names:
            remove(path)


def checkpoints(run: Path) -> list[Path]:
    """Return a run's checkpoints, complete or not."""
    return [path for path in run.glob("checkpoint-*") if step_of(path) >= 0 and path.is_dir()]


@contextmanager
def only_whole_checkpoints(run: Path) -> Iterator[None]:
    """Remove a partial checkpoint if training ends with an error, and report a full disk.

    The main process alone clears up: to another, a checkpoint that the main one is about to mark looks half-written.
    """
    try:
        with naming_the_disk(run):
            yield
    except BaseException:
        for path in cut_off(run) if os.environ.get("RANK", "0") == "0" else []:
            shutil.rmtree(path, ignore_errors=True)
        raise
