"""Writing files so that they are whole or absent."""

import contextlib
import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignment.errors import AlignmentError
from alignment.json_lines import encodable, line_of, lines_of, read_object, read_ours

PARTIAL = ".partial"  # ends the name of a file that is written and not yet renamed
FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
IMPOSSIBLE = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP, errno.EBUSY)
# Messages of safetensors and torch for a full disk; the last two are for a zip file that torch could not complete.
FULL_WORDS = ("No space left on device", "PytorchStreamWriter failed writing", "basic_ios::clear", "unexpected pos ")


@contextlib.contextmanager
def naming_the_disk(path: Path) -> Iterator[None]:
    """Turn a full disk or a forbidden path into a message that names it."""
    try:
        yield
    except AlignmentError:
        raise
    except Exception as error:
        if disk_is_full(error):
            raise AlignmentError(
                f"{path}: no room left on the disk; free some and run the same command again."
            ) from error
        if isinstance(error, OSError) and error.errno in FORBIDDEN:
            raise AlignmentError(
                f"{path}: may not be written ({os.strerror(error.errno)}); choose another folder."
            ) from error
        if isinstance(error, OSError) and error.errno in IMPOSSIBLE:
            raise AlignmentError(f"{path}: {os.strerror(error.errno)}; choose another path.") from error
        raise


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or one it came from, is the disk's: safetensors and torch wrap it in errors of their own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        if any(words in str(error) for words in FULL_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


def write_atomic(path: Path | str, content: str | bytes) -> None:
    """Write beside `path`, flush to disk and rename, so that a reader sees the old file or the whole new one.

    A device or a pipe, `/dev/null` and `/dev/stdout` among them, is written into: a rename would take its place.
    Half of a surrogate pair, which UTF-8 cannot hold, is written as its escape.
    """
    path = Path(path)
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    with naming_the_disk(path):
        if _is_device(path):
            with path.open("ab") as device:
                device.write(data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PARTIAL)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(beside, 0o666 & ~_umask())
            os.replace(beside, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside)
            raise


def _is_device(path: Path) -> bool:
    """Whether a path names what is there to write into; `/dev/stdout`, a link, does even where it leads to a file.

    A file in `/dev/shm` is a file like any other.
    """
    is_special = path.exists() and not path.is_file() and not path.is_dir()
    return is_special or (path.parts[:2] == ("/", "dev") and path.is_symlink() and path.exists())


def is_partial(path: Path) -> bool:
    """Whether a kill came between a file's writing by `write_atomic` and its renaming."""
    return path.name.startswith(".") and path.name.endswith(PARTIAL)


def remove_partial(folder: Path) -> None:
    """Delete what a kill left unnamed in a folder that only this process writes to."""
    for file in folder.glob(f".*{PARTIAL}"):
        file.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Have a file's bytes reach the disk, so that no power cut takes them away."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_atomic(path, encodable(value, indent=2, default=str) + "\n")


def read_json_object(path: Path | str, remedy: str = "put the run's own file back.") -> dict[str, Any]:
    """Read an object that a run wrote; {} if the file does not exist.

    Raises: AlignmentError if it cannot be read, or holds something else.
    """
    path = Path(path)
    return read_object(path, remedy) if path.is_file() else {}


def write_jsonl(path: Path | str, rows: list[dict[str, Any]]) -> None:
    """Write one JSON object a line, whole or not at all."""
    write_atomic(path, lines_of(rows))


def append_jsonl(path: Path | str, row: dict[str, Any]) -> None:
    """Append one JSON object as one line."""
    path = Path(path)
    with naming_the_disk(path), path.open("a", encoding="utf-8", newline="\n") as file:
        file.write(line_of(row, default=str))


def read_jsonl(path: Path | str) -> list[dict[str, Any]]:
    """Read a file of JSON objects; a last line cut off by a kill is left out, an absent file is empty."""
    return read_ours(path)


def text_hash(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
