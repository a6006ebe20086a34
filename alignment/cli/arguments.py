"""Checks the arguments of a command, in one place for all commands."""

import errno
import os
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignment.config.expanded import expanded
from alignment.errors import RecipeError
from alignment.strict_json import is_whole, shown

LONGEST = 4096  # characters, of a path on Linux; a name or an address is shorter
LONGEST_PART = 255  # bytes, of one name in a path
NO_TEXT = ("Cc", "Cs", "Zl", "Zp")  # control characters, bytes that are no UTF-8, line and paragraph separators
OUTPUTS = (
    "json",
    "html",
    "json_out",
    "out",
    "output",
    "suggestions",
    "calibrated",
)  # parameters that name files to write
TEXTS = ("system", "chat_template", "proxy")  # parameters that hold text, which may have lines
RUN_NAMES = ("manifest", "recipe", "pipeline", "config", "tokenizer", "whole", "metrics", "samples", "labels", "README")
RUN_SUFFIXES = (".safetensors", ".sqlite", ".pt", ".bin", ".arrow", ".jinja")


def expanded_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Expand `~` and `$VARIABLE` in paths, which the shell does not do in `--out=~/x`.

    Raises: RecipeError if a variable is not set, or a user does not exist.
    """
    faults: list[str] = []

    def settle(name: str, word: Any) -> Any:
        if name in TEXTS and not isinstance(word, Path):
            return word
        if not isinstance(word, Path) and not (isinstance(word, str) and _may_be_path(word)):
            return word
        text, fault = expanded(str(word))
        faults.extend([f"{name} {fault}"] if fault else [])
        return type(word)(text)

    found = {
        name: [settle(name, word) for word in value] if isinstance(value, list) else settle(name, value)
        for name, value in given.items()
    }
    if faults:
        raise RecipeError(faults)
    return found


def _may_be_path(word: str) -> bool:
    return "://" not in word and not any(map(str.isspace, word)) and (word.startswith(("~", "$")) or "/" in word)


def require_arguments(given: Mapping[str, Any]) -> None:
    """Check the paths, names and addresses among the arguments.

    Raises: RecipeError if one is not a line of text, or is longer than a path can be.
    """
    faults = []
    for name, value in given.items():
        for word in value if isinstance(value, list) else [value]:
            fault = _fault(word, is_text=name in TEXTS) if isinstance(word, str | Path) else None
            if isinstance(value, list) and isinstance(word, str) and not word.strip():
                fault = "it is empty"
            if fault:
                quoted = "" if "key" in name else f" {shown(str(word))}"  # it may be the key itself
                faults.append(f"{name}{quoted}: {fault}")
    faults = faults or list(_overwritten(given))
    if faults:
        raise RecipeError(faults)


def _overwritten(given: Mapping[str, Any]) -> Iterator[str]:
    """Yield the faults of outputs that would replace an input or another output."""
    inputs = [Path(word) for name, value in given.items() if name not in OUTPUTS for word in _texts(value)]
    outputs = {name: Path(word) for name in OUTPUTS for word in _texts(given.get(name))}
    taken: dict[Path, str] = {}
    for name, output in outputs.items():
        resolved = output.resolve()
        if resolved in taken:
            yield f"{name} {shown(str(output))}: {taken[resolved]} names the same file; name another"
        taken[resolved] = name
        for read in inputs if output.is_file() else ():
            if read.is_file() and read.samefile(output):
                yield f"{name} {shown(str(output))}: it is also read, and would be replaced; name another file"
            elif read.is_dir() and resolved.is_relative_to(read.resolve()) and _is_of_a_run(output):
                yield (
                    f"{name} {shown(str(output))}: it is a file of {shown(str(read))}, which is read, and would be "
                    "replaced; name another file"
                )


def _texts(value: Any) -> list[str]:
    return [str(word) for word in (value if isinstance(value, list) else [value]) if isinstance(word, str | Path)]


def _is_of_a_run(path: Path) -> bool:
    first = path.name.split(".")[0]
    return path.suffix in RUN_SUFFIXES or first in RUN_NAMES or first.endswith("_config")


def _fault(word: str | Path, *, is_text: bool = False) -> str | None:
    text = str(word)
    if is_text:
        return None if is_whole(text) else "it holds bytes that are not UTF-8"
    if any(unicodedata.category(character) in NO_TEXT for character in text):
        return "it holds a control character, a line separator or a byte that is not UTF-8; rename what it names"
    if len(text) > LONGEST:
        return f"it has {len(text)} characters, more than the {LONGEST} of any path or name"
    if isinstance(word, Path) and any(len(part.encode()) > LONGEST_PART for part in word.parts):
        return f"a name in it is longer than the {LONGEST_PART} bytes that file systems allow"
    return "it is a link that leads back to itself" if _leads_to_itself(text) else None


def _leads_to_itself(path: str) -> bool:
    try:
        os.stat(path)
    except OSError as error:
        return error.errno == errno.ELOOP
    return False
