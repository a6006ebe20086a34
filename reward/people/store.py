"""People's labels, in tables of the run's SQLite file, beside the judges' calls.

Rows are only ever added: the last one of a person about an item counts, so that undoing and changing one's mind leave
their trace.
"""

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from alignment.errors import AlignmentError, DataError
from reward.people.items import Item
from reward.people.kept import Damaged, item_of, label_of
from reward.people.label import Label

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


class PeopleStore:
    """The open table; one process holds the file at a time."""

    def __init__(self, path: Path) -> None:
        """Open or create the table.

        Raises: DataError if the file is no store; AlignmentError if another process holds it.
        """
        self.path = path
        self._items: dict[str, Item] | None = None  # read once
        with self._naming():
            # Threads use the connection one at a time, so it may be opened in any of them.
            self._connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
            # Labels of people are few and expensive: FULL waits for the disk, so that a power failure loses none.
            for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=FULL"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")

    def add_items(self, items: list[Item]) -> None:
        """Store the texts of items, so that labels can be read without the original file."""
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
        self._items = None

    def add(self, label: Label) -> Label:
        """Store a label; a kill after this returns does not lose it."""
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
        return replace(label, labelled_at=now, number=cursor.lastrowid or 0)

    def labels(self) -> list[Label]:
        """Return the last label of every person on every item, the oldest first.

        Raises: DataError naming a row that holds anything that no label has.
        """
        items = self.items()
        with self._naming():
            rows = self._connection.execute(
                "SELECT id, annotator, item, status, ranks, shown, guidelines, seconds, labelled_at FROM people"
                " WHERE id IN (SELECT max(id) FROM people GROUP BY annotator, item) ORDER BY id"
            ).fetchall()
            found = []
            for row in rows:
                with self._naming_row("people", f"id = {row[0]}"):
                    found.append(label_of(row, items))
        return found

    def items(self) -> dict[str, Item]:
        """Return all stored items, by key.

        Raises: DataError naming a row that is no item.
        """
        if self._items is None:
            items: dict[str, Item] = {}
            with self._naming():
                for number, key, text in self._connection.execute("SELECT rowid, key, item FROM people_items"):
                    with self._naming_row("people_items", f"rowid = {number}"):
                        items[key] = item_of(key, text)
            self._items = items
        return dict(self._items)

    def close(self) -> None:
        """Merge the journal into the file and close it."""
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
            raise _fault_of(self.path, error) from error

    @contextlib.contextmanager
    def _naming_row(self, table: str, which: str) -> Iterator[None]:
        try:
            yield
        except Damaged as error:
            raise DataError(
                f"{self.path}: the row of {table} with {which} is damaged: {error}. Put back a copy of the file, or "
                f'delete the row: sqlite3 FILE "DELETE FROM {table} WHERE {which}".'
            ) from None


def _fault_of(path: Path, error: sqlite3.Error) -> AlignmentError:
    text = str(error)
    if "locked" in text:
        return AlignmentError(
            f"{path}: another process labels or annotates here; wait until it ends. Several people share one "
            "`alignment annotate`."
        )
    if "full" in text:
        return AlignmentError(f"{path}: no room left on the disk ({text}); free some and continue.")
    if "readonly" in text or "disk I/O" in text or "unable to open" in text:
        return AlignmentError(
            f"{path}: cannot be written ({text}); check that the file and its folder may be written and that the disk "
            "has room."
        )
    return DataError(f"{path}: cannot be used as a store of labels ({text}).")
