"""Examples of dropped and changed rows for the page, with the words that differ marked."""

import difflib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.json_lines import objects_of
from alignment.prepare.store import Counts
from alignment.report.wording import visible

EXAMPLES = 3  # of each step, dropped and changed
MOST_LINES = 50_000  # of records that are looked at for examples
LONGEST = 600  # characters of a text
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")
Piece = tuple[str, str]  # "", "old" or "new", and text


@dataclass(frozen=True, slots=True)
class Example:
    """One record."""

    reason: str
    origin: str
    sides: list[tuple[str, list[Piece]]]  # heading, and text in pieces


def examples(files: Sequence[Path], counts: Sequence[Counts]) -> dict[int, dict[str, list[Example]]]:
    """Return examples by the number of the step and what it did to them: those with different reasons first."""
    wanted = {
        (number, action): min(EXAMPLES, sum(found.values()))
        for number, one in enumerate(counts, 1)
        for action, found in (("dropped", one.dropped), ("changed", one.changed))
    }
    found: dict[int, dict[str, list[Example]]] = {}
    for file in files:
        for record in _records(file, wanted):
            example = _example(record)
            found.setdefault(record["number"], {}).setdefault(record["action"], []).append(example)
    return found


def _records(file: Path, wanted: dict[tuple[int, str], int]) -> Iterator[dict[str, Any]]:
    seen: dict[tuple[int, str], dict[str, list[dict[str, Any]]]] = {}
    with file.open("rb") as lines:
        for record in (one for line in itertools.islice(lines, MOST_LINES) for one in objects_of(line, file)):
            key = (record.get("number", 0), record["action"])
            if key in wanted:
                same = seen.setdefault(key, {}).setdefault(record["reason"], [])
                if len(same) < wanted[key]:
                    same.append(record)
    for key, by_reason in seen.items():
        turns = itertools.zip_longest(*by_reason.values())
        yield from itertools.islice((one for turn in turns for one in turn if one is not None), wanted[key])


def _example(record: dict[str, Any]) -> Example:
    reason = record["reason"] + (f": {record['detail']}" if record.get("detail") else "")
    sides: list[tuple[str, list[Piece]]] = []
    if "row" in record:
        sides = [("row", [("", visible(_readable(record["row"])))])]
    elif "before" in record:
        before, after = _readable(record["before"]), _readable(record["after"])
        sides = [("before", _marked(before, after, "old")), ("after", _marked(after, before, "new"))]
    return Example(reason, record["origin"], sides)


def _readable(value: Any) -> str:
    """Return the texts of a row or of a list, one under the other."""
    return _cut("\n\n".join(_texts(value)))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _marked(text: str, other: str, mark: str) -> list[Piece]:
    """Return a text in pieces; those that the other one lacks have the mark."""
    mine, theirs = _WORDS.findall(text), _WORDS.findall(other)
    pieces: list[Piece] = []
    for kind, begin, end, _, _ in difflib.SequenceMatcher(None, mine, theirs, autojunk=False).get_opcodes():
        if end > begin:
            pieces.append(("" if kind == "equal" else mark, visible("".join(mine[begin:end]))))
    return pieces
