"""What people said, in a table of its own in the run's SQLite file, beside the judges' calls.

Rows are only ever added: the last one of a person about an item counts, so that undoing and changing one's mind leave
their trace.
"""

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alignment.errors import AlignmentError, DataError
from reward.people.items import Item

Said = Literal["ok", "tie", "abstain", "skipped", "withdrawn"]
SAID: tuple[Said, ...] = ("ok", "tie", "abstain")  # what counts as a label; the others leave the item open
SCHEMA = """
CREATE TABLE IF NOT EXISTS people_items (
    key TEXT PRIMARY KEY,
    item TEXT NOT NULL              -- JSON {prompt, responses, provenance}
);
CREATE TABLE IF NOT EXISTS people (
    id INTEGER PRIMARY KEY,
    annotator TEXT NOT NULL,
    item TEXT NOT NULL,             -- key in people_items
    status TEXT NOT NULL,           -- ok | tie | abstain: labels; skipped | withdrawn: the item is open again
    ranks TEXT,                     -- JSON list, one number for each answer: 1 is best, equal is a tie; else NULL
    shown TEXT NOT NULL,            -- JSON list of indices of answers, in the order in which they were shown
    guidelines TEXT NOT NULL,       -- SHA-256 of the guidelines that were shown, or ""
    seconds REAL NOT NULL,          -- that the item was looked at
    labelled_at REAL NOT NULL       -- Unix time
);
"""


@dataclass(frozen=True, slots=True)
class Label:
    """What one person said of one item."""

    annotator: str
    item: str
    status: Said
    ranks: list[int] | None
    shown: list[int]
    guidelines: str
    seconds: float
    labelled_at: float = 0.0  # Unix time; set by the store
    number: int = 0  # rises with every label; set by the store


class PeopleStore:
    """The open table; one process holds the file at a time."""

    def __init__(self, path: Path) -> None:
        """Open or create the table.

        Raises: DataError where the file is no store; AlignmentError where another process holds it.
        """
        self.path = path
        with self._naming():
            # Threads take turns, as the one event loop does; which of them opened the file is of no matter.
            self._connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
            # A person's minute is dear and seldom: FULL waits for the disk, so that not even a power cut loses it.
            for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")

    def add_items(self, items: list[Item]) -> None:
        """Keep the texts of items, so that their labels can be read without the file they came from."""
        rows = [
            (
                item.key,
                json.dumps({"prompt": item.prompt, "responses": item.responses, "provenance": item.provenance}),
            )
            for item in items
        ]
        with self._naming():
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT OR IGNORE INTO people_items VALUES (?, ?)", rows)
            self._connection.execute("COMMIT")

    def add(self, label: Label) -> Label:
        """Keep a label; once this returns, no kill loses it."""
        now = time.time()
        with self._naming():
            cursor = self._connection.execute(
                "INSERT INTO people (annotator, item, status, ranks, shown, guidelines, seconds, labelled_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    label.annotator,
                    label.item,
                    label.status,
                    None if label.ranks is None else json.dumps(label.ranks),
                    json.dumps(label.shown),
                    label.guidelines,
                    label.seconds,
                    now,
                ),
            )
        return _label((cursor.lastrowid, *_columns(label), now))

    def labels(self) -> list[Label]:
        """Return the last word of every person about every item, the oldest first."""
        with self._naming():
            rows = self._connection.execute(
                "SELECT id, annotator, item, status, ranks, shown, guidelines, seconds, labelled_at FROM people"
                " WHERE id IN (SELECT max(id) FROM people GROUP BY annotator, item) ORDER BY id"
            ).fetchall()
        return [_label((*row[:4], _loaded(row[4]), _loaded(row[5]), *row[6:])) for row in rows]

    def items(self) -> dict[str, Item]:
        """Return every item that was ever asked, by key."""
        with self._naming():
            rows = self._connection.execute("SELECT key, item FROM people_items").fetchall()
        return {key: Item(key=key, **json.loads(item)) for key, item in rows}

    def close(self) -> None:
        """Fold the journal into the file and let go of it."""
        self._connection.close()

    def __enter__(self) -> "PeopleStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            text = str(error)
            if "locked" in text:
                raise AlignmentError(
                    f"{self.path}: another process is labelling or annotating here; wait for it to end. Several people "
                    "share one `alignment annotate`."
                ) from error
            if "full" in text or "disk I/O" in text:
                raise AlignmentError(f"{self.path}: no room left on the disk ({text}); free some and go on.") from error
            raise DataError(f"{self.path}: cannot be used as a store of labels ({text}).") from error


def _columns(label: Label) -> tuple[Any, ...]:
    return (
        label.annotator, label.item, label.status, label.ranks, label.shown, label.guidelines, label.seconds
    )  # fmt: skip


def _label(row: tuple[Any, ...]) -> Label:
    number, annotator, item, status, ranks, shown, guidelines, seconds, labelled_at = row
    return Label(annotator, item, status, ranks, shown, guidelines, seconds, labelled_at, number)


def _loaded(text: str | None) -> Any:
    return None if text is None else json.loads(text)
