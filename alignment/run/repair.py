"""Repairs the logs of a resumed run: readable lines stay, and a message names the others."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignment.errors import JsonError
from alignment.json_lines import split
from alignment.meter import say
from alignment.run.files import naming_the_disk
from alignment.strict_json import OURS, parse

DAMAGED = ".damaged"  # behind the name of a log that is kept as it was found


def readable_rows(path: Path, fits: Callable[[dict[str, Any]], bool], remedy: str = "left out") -> list[dict[str, Any]]:
    """Return the rows of a log that are objects and fit; a last line that a kill cut off is left out.

    Where another line is damaged the file is kept as it is under another name, and one line names the first such line.

    Args:
        fits: whether a row is as it was written. remedy: what happens to damaged lines, for the message.
    """
    if not path.is_file():
        return []
    content = path.read_bytes()
    last = content.rfind(b"\n") + 1
    rows: list[dict[str, Any]] = []
    bad: list[int] = []
    for number, line in split(content[:last]):
        row = _row_or_none(line)
        if row is None or not fits(row):
            bad.append(number)
        else:
            rows.append(row)
    row = _row_or_none(content[last:])
    if row is not None and fits(row):  # complete, except for its end of line
        rows.append(row)
    if bad:
        aside = path.with_name(f"{path.name}{DAMAGED}")
        with naming_the_disk(aside):
            shutil.copyfile(path, aside)
        others = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        say(f"{path}:{bad[0]}: damaged{others}; {remedy}; the file is kept as {aside.name}")
    return rows


def _row_or_none(line: bytes) -> dict[str, Any] | None:
    try:
        row = parse(line, OURS)
    except JsonError:
        return None
    return row if isinstance(row, dict) else None
