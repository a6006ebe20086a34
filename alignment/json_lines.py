r"""Files of JSON: one object, or JSON lines, which are one value a line that ends at "\n" only.

`str.splitlines` also splits at \r, \x0b, \x0c, \x1c to \x1e, U+0085, U+2028 and U+2029, all of which may stand in a
text, so no reader of such a file uses it. The writer escapes those that JSON does not, for readers that do.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from alignment.errors import AlignmentError, JsonError
from alignment.strict_json import OURS, Limits, is_whole, parse, shown

BREAKS = "\x85\u2028\u2029"  # end a line for some readers, and JSON leaves them as they are


def encodable(value: Any, *, indent: int | None = None, default: Callable[[Any], Any] | None = None) -> str:
    """Return a value as JSON text; half of a surrogate pair, which UTF-8 cannot hold, is written as its escape."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=default)
    return text if is_whole(text) else json.dumps(value, indent=indent, default=default)


def line_of(value: Any, *, default: Callable[[Any], Any] | None = None) -> str:
    r"""Return a value as one line with its "\n"."""
    text = encodable(value, default=default)
    for character in BREAKS:
        if character in text:
            text = text.replace(character, f"\\u{ord(character):04x}")
    return text + "\n"


def lines_of(values: Iterable[Any], *, default: Callable[[Any], Any] | None = None) -> str:
    """Return values as the text of a file."""
    return "".join(line_of(value, default=default) for value in values)


def split(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank with their numbers, from 1."""
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            yield number, line


def read_ours(path: Path | str) -> list[dict[str, Any]]:
    """Read the objects of a file that a run of this project wrote; a last line cut off by a kill is left out.

    An absent file is empty. Raises: AlignmentError with file and line where another line is damaged.
    """
    return list(objects_of(Path(path).read_bytes(), path)) if Path(path).is_file() else []


def read_object(path: Path, remedy: str, most_bytes: int = OURS.size) -> dict[str, Any]:
    """Read the object of a file that a run of this project wrote.

    Raises: AlignmentError with the file and `remedy` if it is too large, cannot be read, or holds something else.
    """
    try:
        size = path.stat().st_size
        if size > most_bytes:
            raise AlignmentError(f"{path}: has {size:,} bytes, and no run writes more than {most_bytes:,}; {remedy}")
        value = parse(path.read_bytes(), OURS)
    except JsonError as error:
        raise AlignmentError(f"{path}: not JSON ({error}); {remedy}") from None
    except OSError as error:
        raise AlignmentError(f"{path}: cannot be read ({os.strerror(error.errno or 0)}).") from error
    if not isinstance(value, dict):
        raise AlignmentError(f"{path}: holds {shown(value)}, not an object; {remedy}")
    return value


def objects_of(content: bytes, name: Path | str, limits: Limits = OURS) -> Iterator[dict[str, Any]]:
    """Yield the objects of a file's lines, leaving out a last line that was cut off.

    Raises: AlignmentError with file and line where another one cannot be read.
    """
    cut_off = content.rfind(b"\n") + 1
    whole, rest = content[:cut_off], content[cut_off:]
    for number, line in split(whole):
        yield _object(line, f"{name}:{number}", limits)
    with contextlib.suppress(JsonError):
        if rest.strip():
            yield _object(rest, "", limits)


def _object(line: bytes, where: str, limits: Limits) -> dict[str, Any]:
    try:
        value = parse(line, limits)
    except JsonError as error:
        raise JsonError(f"{where}: not JSON as it was written ({error}); the file was changed or damaged.") from None
    if not isinstance(value, dict):
        raise JsonError(f"{where}: a row is {shown(value)}, not an object; the file was changed or damaged.")
    return value
