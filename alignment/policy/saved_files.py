"""Files that were saved together: sizes and hashes of all their bytes, by which a later change is found.

`whole.json` lists them in the folder itself. It is written last: a folder without it was cut off while it was written.
The hash is XXH3, which reads as fast as a disk does; it finds damage and mixtures, and is no defence against forgers.
"""

import functools
import os
import stat
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

import xxhash

from alignment.errors import AlignmentError, JsonError, ModelError
from alignment.strict_json import OURS, parse, shown

WHOLE = "whole.json"
HASH = "xxh3_128"
BLOCK_BYTES = 1 << 22
THREADS = 8  # hashing lets go of Python's lock
DAMAGED = "cannot be read as this project writes it"


@dataclass(frozen=True, slots=True)
class Saved:
    """A file as it was written; the hash is None in a mark of a version that kept sizes alone."""

    size: int
    hash: str | None


@dataclass(frozen=True, slots=True)
class Mark:
    """What `whole.json` holds."""

    files: dict[str, Saved] = field(default_factory=dict)  # by path inside the folder
    step: int | None = None
    run: str | None = None  # identifier of the run that wrote it


class Damaged(Exception):
    """A folder differs from what was saved; the text begins with the file's name."""


def file_hash(path: Path) -> str:
    """XXH3 of all bytes of a file, in hexadecimal."""
    found = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            found.update(block)
    return found.hexdigest()


def _hash_once(path: Path) -> str:
    """The same, read anew only where the file has changed: a stage looks for its model several times."""
    status = path.stat()
    return _hash_of_version(path.absolute(), status.st_mtime_ns, status.st_size, status.st_ino)


@functools.lru_cache(maxsize=4096)
def _hash_of_version(path: Path, modified: int, size: int, inode: int) -> str:
    return file_hash(path)


def mark_of(folder: Path, names: Iterable[str], **about: Any) -> dict[str, Any]:
    """Return what `whole.json` is to hold of some files of a folder."""
    names = sorted(names)
    with ThreadPoolExecutor(THREADS) as pool:
        hashes = list(pool.map(file_hash, [folder / name for name in names]))
    files = {
        name: {"bytes": (folder / name).stat().st_size, HASH: hash_}
        for name, hash_ in zip(names, hashes, strict=True)
    }  # fmt: skip
    return {**about, "files": files}


def is_marked(folder: Path) -> bool:
    """Whether a folder has a `whole.json`, of whatever kind.

    Raises: AlignmentError if the folder cannot be read.
    """
    try:
        (folder / WHOLE).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unreadable(folder, error) from error
    return True


def read_mark(folder: Path) -> Mark | None:
    """Return what `whole.json` holds; None if there is none.

    Raises: Damaged where it is not as this project writes it.
    """
    file = folder / WHOLE
    if not is_marked(folder):
        return None
    try:
        value = parse(file.read_bytes(), OURS)
    except JsonError as error:
        raise Damaged(f"{WHOLE} {DAMAGED}: {error}") from None
    except IsADirectoryError:
        raise Damaged(f"{WHOLE} is a folder") from None
    except FileNotFoundError:
        raise Damaged(f"{WHOLE} is a link to a file that is not there") from None
    except OSError as error:
        raise _unreadable(file, error) from error
    if not isinstance(value, dict):
        raise Damaged(f"{WHOLE} {DAMAGED}: it is {shown(value)}")
    files, step, run = value.get("files", value), value.get("step"), value.get("run")
    if not isinstance(files, dict) or not files:
        raise Damaged(f"{WHOLE} {DAMAGED}: it lists no files")
    if not (step is None or _is_count(step)) or not (run is None or isinstance(run, str)):
        raise Damaged(f"{WHOLE} {DAMAGED}: step is {shown(step)}, run is {shown(run)}")
    return Mark({name: _saved(name, entry) for name, entry in files.items()}, step, run)


def _saved(name: str, entry: Any) -> Saved:
    parts = PurePosixPath(name).parts
    size, hash_ = (entry.get("bytes"), entry.get(HASH)) if isinstance(entry, dict) else (entry, None)
    inside = bool(parts) and ".." not in parts and not name.startswith("/") and "\0" not in name
    if not inside or not _is_count(size) or (isinstance(entry, dict) and not isinstance(hash_, str)):
        raise Damaged(f"{WHOLE} {DAMAGED}: it lists {shown(name)} as {shown(entry)}")
    return Saved(size, hash_)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def require_saved(folder: Path, files: dict[str, Saved], hash_of: Callable[[Path], str] | None = file_hash) -> None:
    """Compare files with what was saved; without `hash_of` by their sizes alone.

    Raises: Damaged naming the first file that differs; AlignmentError if one cannot be read.
    """
    for name, saved in files.items():
        file = folder / name
        try:
            status = file.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise Damaged(f"{name} is missing") from None
        except OSError as error:
            raise _unreadable(file, error) from error
        if not stat.S_ISREG(status.st_mode):
            raise Damaged(f"{name} is not a file")
        if status.st_size != saved.size:
            raise Damaged(f"{name} has {status.st_size:,} bytes, and {saved.size:,} were saved")
    if hash_of is None:
        return
    hashed = [name for name, saved in files.items() if saved.hash is not None]
    with ThreadPoolExecutor(THREADS) as pool:
        hashes = [pool.submit(hash_of, folder / name) for name in hashed]
        for name, found in zip(hashed, hashes, strict=True):
            try:
                same = found.result() == files[name].hash
            except OSError as error:
                raise _unreadable(folder / name, error) from error
            if not same:
                pool.shutdown(wait=False, cancel_futures=True)
                raise Damaged(f"{name} holds other bytes than were saved")


def _unreadable(file: Path, error: OSError) -> AlignmentError:
    return AlignmentError(
        f"{file} cannot be read ({os.strerror(error.errno or 0)}); make it readable, or move its folder elsewhere."
    )


def require_weights_as_saved(folder: Path) -> None:
    """Refuse a folder whose weights are not those that `whole.json`, if there is one, lists.

    Configurations and tokenizers may be edited. One process of each machine reads the files, and each only once.

    Raises: ModelError naming the file.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return
    try:
        mark = read_mark(folder)
        weights = {name: saved for name, saved in mark.files.items() if name.endswith(".safetensors")} if mark else {}
        require_saved(folder, weights, _hash_once)
    except Damaged as fault:
        raise ModelError(
            f"{folder}: {fault}: it was damaged or changed since. Restore it or train it again; where it was changed "
            f"on purpose, delete {folder / WHOLE}."
        ) from None
