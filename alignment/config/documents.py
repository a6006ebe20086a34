"""YAML files that users write: read whole, within bounds, and without keys; each value with its place in the file."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.config.expanded import expand
from alignment.config.secrets import keys_in
from alignment.config.yaml_text import Location as Location
from alignment.config.yaml_text import a_kind, dotted, parse_yaml, spoken
from alignment.errors import RecipeError

LONGEST_PATH = 300  # characters that a message shows
LARGEST = 256 * 2**10  # bytes; a recipe of a hundred keys has four thousand


@dataclass
class Document:
    """A file's values, with the line of each."""

    path: str
    values: dict[str, Any]
    lines: dict[Location, int] = field(default_factory=dict)
    flags: list[Location] = field(default_factory=list)  # values that the command line gave

    def fault(self, location: Location, message: str) -> str:
        """Return a line that names the place and the key: `x.yaml:12: judge.model: message`."""
        for length in range(len(location), 0, -1):
            prefix = location[:length]
            if prefix in self.flags:
                return f"--{dotted(location)}: {message}"
            if prefix in self.lines:
                return f"{self.path}:{self.lines[prefix]}: {spoken(location)}: {message}"
        for flag in self.flags:
            if flag[: len(location)] == location:
                return f"--{dotted(flag)}: {message}"
        return f"{self.path}: {spoken(location)}: {message}" if location else f"{self.path}: {message}"

    def order(self, location: Location) -> tuple[int, int]:
        """Sort key that puts faults in the file's order, then those of no line, then the command line's."""
        for length in range(len(location), 0, -1):
            prefix = location[:length]
            if prefix in self.flags:
                return (2, self.flags.index(prefix))
            if prefix in self.lines:
                return (0, self.lines[prefix])
        return (1, 0)


def read_document(path: str) -> Document:
    """Read a YAML file whose top is a mapping, and expand `~` and `$VARIABLE` in its paths.

    Raises: RecipeError, with line and column if there is one; also if it contains an API key or a password.
    """
    lines: dict[Location, int] = {}
    _, value = read_yaml(path, lines)
    if value is None:
        raise RecipeError([f"{path}: is empty; a recipe is a mapping of keys to values"])
    if not isinstance(value, dict):
        raise RecipeError([f"{path}: holds {a_kind(value)}; a recipe is a mapping of keys to values"])
    document = Document(path, value, lines)
    _refuse_keys(document)
    faults = [document.fault(*fault) for fault in expand(value)]
    _refuse_keys(document)  # that a variable holds
    if faults:
        raise RecipeError(faults)
    return document


def _refuse_keys(document: Document) -> None:
    keys = [document.fault(*fault) for fault in keys_in(document.values)]
    if keys:
        raise RecipeError(keys)  # alone: other faults would show values


def read_yaml(path: str, lines: dict[Location, int] | None = None) -> tuple[bytes, Any]:
    """Read a YAML file of whatever value.

    Args:
        lines: filled with the line of every key and entry.

    Returns: its bytes and its value.
    Raises: RecipeError, with line and column if there is one.
    """
    data = read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError([f"{path}: not UTF-8 text: byte {error.start} cannot be read"]) from None
    faults: list[str] = []
    try:
        value = parse_yaml(text, path, {} if lines is None else lines, faults)
    except RecipeError as error:
        raise RecipeError([f"{path}:{fault}" for fault in error.faults]) from None
    if faults:
        raise RecipeError(faults)
    return data, value


def read_bytes(path: str, kind: str = "YAML") -> bytes:
    """Read a file that a recipe is, or names.

    Raises: RecipeError if it does not exist, is not a regular file, or is too large.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise RecipeError([f"{path}: is a folder; name the {kind} file in it"])
        if not stat.S_ISREG(mode) and not Path(path).is_relative_to("/dev/fd"):  # `<(command)` of a shell
            raise RecipeError([f"{path}: is not a regular file; name a file of {kind}"])
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise RecipeError([f"{path}: no such file"]) from None
    except OSError as error:
        raise RecipeError([f"{path[:LONGEST_PATH]}: cannot be read: {error.strerror}"]) from None
    except ValueError:
        raise RecipeError([f"{path!r}: no file's name"]) from None
    if len(data) > LARGEST:
        raise RecipeError([f"{path}: is larger than {LARGEST // 2**10} KiB; no file of a recipe is"])
    return data


def parse_value(text: str) -> Any:
    """Read one value of the command line by the same rules.

    Raises: RecipeError if it is no YAML.
    """
    faults: list[str] = []
    value = parse_yaml(text, "", {}, faults)
    if faults:
        raise RecipeError([fault.split(": ", 1)[1] for fault in faults])
    return value
