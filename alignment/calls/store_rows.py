"""Reads rows of a store of calls and checks the type of each value.

A store may have been edited or damaged. A row with a value that this project does not write is an error, never a label,
and no message advises to delete calls that were paid for.
"""

import contextlib
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from alignment.calls.call import ChatReply
from alignment.data.fields import BadRow
from alignment.data.rows import REASONING_FIELD, Prompt, Ranking
from alignment.data.sampled import KEY, require_records
from alignment.errors import AlignmentError, DataError, JsonError
from alignment.strict_json import OURS, parse, shown


class Damage(ValueError):
    """A row was edited or damaged."""

    def __init__(self, what: str, remedy: str) -> None:
        """Keep the remedy."""
        super().__init__(what)
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Sampled:
    """K answers to the prompt at one position of the run's list."""

    position: int
    prompt: Prompt
    responses: list[str]
    stopped: list[bool]
    tokens: list[dict[str, Any]] = field(default_factory=list)  # as `alignment.data.sampled` keeps them
    reasoning_field: list[bool] | None = None  # as `Ranking.reasoning_field`; None if no answer has one

    @classmethod
    def of(cls, position: int, ranking: Ranking) -> "Sampled":
        """Take the answers of a ranking."""
        stopped = [ranking.stopped(index) for index in range(len(ranking.responses))]
        return cls(
            position,
            ranking.prompt,
            ranking.responses,
            stopped,
            ranking.provenance.get(KEY) or [],
            ranking.provenance.get(REASONING_FIELD),
        )

    def of_answers(self) -> dict[str, Any]:
        """Return the entries of provenance about the answers."""
        found: dict[str, Any] = {"stopped": self.stopped}
        if self.reasoning_field is not None:
            found[REASONING_FIELD] = self.reasoning_field
        return {**found, **({KEY: self.tokens} if self.tokens else {})}


def sampled(row: tuple[Any, ...]) -> Sampled:
    """Read a row of the table `samples`.

    Raises: Damage.
    """
    position, prompt, responses, stopped, tokens, fields = row
    where = f"the row of samples at position {shown(position)}"
    prompt, responses, stopped = (_json(each, where) for each in (prompt, responses, stopped))
    tokens = [] if tokens is None else _json(tokens, where) or []  # none in stores of earlier releases
    fields = None if fields is None else _json(fields, where)
    count = len(responses) if isinstance(responses, list) else 0
    faults = {
        "prompt": not (isinstance(prompt, str) or (_is_list(prompt, dict) and all(map(_is_message, prompt)))),
        "responses": not _is_list(responses, str),
        "stopped": not _is_list(stopped, bool) or len(stopped) != count,
        "reasoning_field": fields is not None and (not _is_list(fields, bool) or len(fields) != count),
        "position": type(position) is not int or position < 0,
    }
    for name, wrong in faults.items():
        if wrong:
            raise Damage(f"{where} has no valid {name}", SAMPLES_REMEDY)
    try:
        require_records(tokens, len(responses))
    except BadRow as error:
        raise Damage(f"{where}: {error}", SAMPLES_REMEDY) from None
    return Sampled(position, prompt, responses, stopped, tokens, fields)


def known_reply(row: tuple[Any, ...]) -> ChatReply:
    """Read `id, status, raw, tokens, details` of a row of the table `calls`.

    Raises: Damage.
    """
    number, status, raw, tokens, details = row
    where = f"row {shown(number)} of calls"
    remedy = CALLS_REMEDY.format(number=shown(number))
    raw = text_of(raw, f"raw in {where}", remedy)
    tokens = [] if tokens is None else _json(tokens, f"tokens in {where}", remedy)
    details = _json(details, f"details in {where}", remedy)
    if not _is_list(tokens, dict) or not isinstance(details, dict):
        raise Damage(f"{where} has tokens or details of another type", remedy)
    if status not in STATUSES:
        raise Damage(f"status in {where} is {shown(status)}, none that a reply can have", remedy)
    return ChatReply(status, raw, raw, tokens, details)


def text_of(value: Any, what: str, remedy: str = "Restore it, or name another output_dir.") -> str:
    """Return a value if it is text.

    Raises: Damage.
    """
    if not isinstance(value, str):
        raise Damage(f"{what} is {shown(value)}, not text", remedy)
    return value


STATUSES = ("ok", "refusal", "truncated", "api_error")
SAMPLES_REMEDY = "Restore it, or name another output_dir."
CALLS_REMEDY = (
    'Delete the row (sqlite3 FILE "DELETE FROM calls WHERE id = {number}"); its call is made again, and the others are '
    "kept."
)


def _json(value: Any, what: str, remedy: str = SAMPLES_REMEDY) -> Any:
    try:
        return parse(text_of(value, what, remedy), OURS)
    except JsonError as error:
        raise Damage(f"{what}: {error}", remedy) from None


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(each, kind) for each in value)


def _is_message(value: dict[Any, Any]) -> bool:
    return all(isinstance(part, str) for part in value.values()) and {"role", "content"} <= value.keys()


def unanswered(folder: Path) -> frozenset[str]:
    """Return the names of a folder's stores without a reply of status "ok"; nothing is lost with these files."""
    found: set[str] = set()
    for path in folder.glob("calls*.sqlite"):
        read_only = f"file:{quote(str(path))}?mode=ro"
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(sqlite3.connect(read_only, timeout=1.0, uri=True)) as connection,
        ):
            if not answers_in(connection):
                found |= {path.name, f"{path.name}-wal", f"{path.name}-shm"}
    return frozenset(found)


def answers_in(connection: sqlite3.Connection) -> int:
    """Return the number of calls with a reply of status "ok"."""
    return int(connection.execute("SELECT COUNT(*) FROM calls WHERE status = 'ok'").fetchone()[0])


def fault_of(path: Path, error: Exception) -> AlignmentError:
    """Return the error that SQLite's error means, with a remedy that loses no call."""
    text = " ".join(str(error).split())
    if "locked" in text:
        message = "another process uses this store; wait until it ends, or name another output_dir."
        return AlignmentError(f"{path}: {message}")
    if "full" in text or "disk I/O" in text:
        message = "free some and run the same command again: it continues from the stored calls."
        return AlignmentError(f"{path}: no room left on the disk ({text}); {message}")
    if "readonly" in text or "unable to open" in text:
        message = "change the permissions of the file and its folder, or name another output_dir."
        return AlignmentError(f"{path}: cannot be written ({text}); {message}")
    return DataError(
        f"{path}: cannot be used as a store of calls ({text}). Its calls may have been paid for: copy it before you "
        "try to repair it (sqlite3 FILE .recover), or name another output_dir."
    )
