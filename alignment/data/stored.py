"""The bytes of a data file, unfolded where they are gzip, in bounded memory and time."""

import gzip
import hashlib
import io
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

from alignment.errors import DataError, first_line
from alignment.strict_json import FOREIGN

ROW_BYTES = FOREIGN.size  # of one row
WHOLE_BYTES = 2**30  # of a file that cannot be read row by row
UNFOLDS = 100  # times its size that a .gz may hold; text is folded by 3 to 20
FREE_BYTES = 64 * 2**20  # that any .gz may hold
LINE_COST = 256  # bytes that a line counts beside its own: a row takes memory however short it is
_CHUNK = 2**20
_MARKS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x1f\x8b": "gzip; its name must end in .gz",
    b"PK\x03\x04": "a zip archive", b"SQLite format 3\x00": "a SQLite file", b"PAR1": "Parquet",
    b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "Zstandard",
}  # fmt: skip
_LFS = b"version https://git-lfs.github.com/spec/"
_HTML = (b"<!doctype html", b"<html")
BOM = b"\xef\xbb\xbf"


class Stored:
    """One file; reading it to its end gives `sha256` of what is on the disk."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises: DataError if it cannot be read, is empty, or is not a regular file: reading a pipe may never end.
        """
        self.path = path
        self.folded = path.name.lower().endswith(".gz")
        self._digest = hashlib.sha256()
        self._read = 0  # bytes of the file so far
        try:
            about = path.stat()
            if not stat.S_ISREG(about.st_mode):
                raise DataError(f"{path} is not a regular file; give a file, or a folder of data files.")
            if not about.st_size:
                raise DataError(f"{path} is empty: it holds no rows.")
            self._file = path.open("rb", buffering=0)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
        self.size = about.st_size

    @property
    def sha256(self) -> str:
        """Return the hash of the whole file, in hexadecimal."""
        while chunk := self._file.read(_CHUNK):
            self._digest.update(chunk)
        return self._digest.hexdigest()

    def __enter__(self) -> "Stored":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def chunks(self) -> Iterator[bytes]:
        """Yield what the file holds, unfolded.

        Raises: DataError if a .gz is damaged or unfolds to far more than it is.
        """
        raw = io.BufferedReader(_Hashed(self), _CHUNK)
        stream = gzip.GzipFile(fileobj=raw, mode="rb") if self.folded else raw
        taken, ends = 0, 0
        while True:
            try:
                chunk = stream.read1(_CHUNK)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                where = f" (line {ends + 1} of what it holds)" if taken else ""
                raise DataError(f"{self.path} is not a whole gzip file: {first_line(error)}{where}.") from error
            except OSError as error:
                raise DataError(f"{self.path} cannot be read: {error.strerror or error}.") from error
            if not chunk:
                return
            ends += chunk.count(b"\n") if self.folded else 0
            taken += len(chunk)
            if self.folded and taken + LINE_COST * ends > max(FREE_BYTES, UNFOLDS * self._read):
                raise DataError(
                    f"{self.path} unfolds to more than {UNFOLDS} times its size, as no text does; unpack it yourself "
                    "if that is what it should hold."
                )
            yield chunk

    def lines(self) -> Iterator[tuple[int, bytes | None]]:
        r"""Yield lines that end at "\n", with their numbers from 1; None for a line above `ROW_BYTES`.

        A line loses the byte order mark that it begins with, as the first line of each of several joined files does.
        """
        rest, too_long, number, begun = b"", False, 1, False
        for chunk in self.chunks():
            if not begun:
                chunk, begun = self.text_of(chunk), True
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield number, None if too_long or len(line) > ROW_BYTES else line.removeprefix(BOM)
                number, too_long = number + 1, False
            if len(rest) > ROW_BYTES:
                rest, too_long = b"", True
        if rest or too_long:
            yield number, None if too_long else rest.removeprefix(BOM)

    def whole(self) -> bytes:
        """Return all that the file holds.

        Raises: DataError if it is more than `WHOLE_BYTES`.
        """
        kept: list[bytes] = []
        taken = 0
        for chunk in self.chunks():
            kept.append(chunk)
            taken += len(chunk)
            if taken > WHOLE_BYTES:
                raise DataError(
                    f"{self.path} has more than {WHOLE_BYTES:,} bytes, which are read at once; write JSON lines, which "
                    "are read row by row."
                )
        return b"".join(kept)

    def text_of(self, start: bytes) -> bytes:
        """Return the start of a text without its byte order mark.

        Raises: DataError if the bytes are known to be no text in UTF-8.
        """
        for mark, what in _MARKS.items():
            if start.startswith(mark):
                raise DataError(f"{self.path} is {what}, not text in UTF-8. Save it as text in UTF-8.")
        if start.startswith(_LFS):
            raise DataError(
                f"{self.path} is a Git LFS pointer, not the data that it points to. Run git lfs pull in its repository."
            )
        text = self.path.name.lower().removesuffix(".gz").endswith((".txt", ".text"))  # where a page may be a document
        if not text and start[:64].removeprefix(BOM).lstrip().lower().startswith(_HTML):
            raise DataError(
                f"{self.path} is an HTML page, not data; it may be a login or error page. Download it again."
            )
        head = start[:64]
        if len(head) >= 8 and not (any(head[0::2]) and any(head[1::2])):
            raise DataError(f"{self.path} is UTF-16 or binary: every second byte is 0. Save it as text in UTF-8.")
        return start.removeprefix(BOM)


class _Hashed(io.RawIOBase):
    """A file's bytes, hashed as they are read."""

    def __init__(self, stored: Stored) -> None:
        self._stored = stored

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview[int]") -> int:  # type: ignore[override]
        count = self._stored._file.readinto(buffer) or 0
        self._stored._digest.update(buffer[:count])
        self._stored._read += count
        return count
