"""Every answer that was sampled and every judge call, in one SQLite file beside the labels.

Sampling and judging are paid for once: what stands here is never done again, however the process ended. Verdicts of
a run are read from here, so the labels can be rebuilt without a call.
"""

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.data.rows import Prompt, Status
from alignment.errors import AlignmentError, DataError, LineageError
from alignment.evaluate.judging import Comparison, Verdict

ANSWERED: frozenset[Status] = frozenset({"ok", "tie", "abstain"})  # the judge's own answers; others are asked again
VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS samples (
    position INTEGER PRIMARY KEY,   -- of the prompt in the run's list of prompts
    prompt TEXT NOT NULL,           -- JSON
    responses TEXT NOT NULL,        -- JSON list of texts
    stopped TEXT NOT NULL           -- JSON list of booleans: false where cut off at max_new_tokens
);
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY,
    question TEXT NOT NULL,         -- SHA-256 of prompt and both answers as shown
    shown TEXT NOT NULL,            -- first | swapped: the order of the answers
    judge TEXT NOT NULL,
    prompt_hash TEXT NOT NULL,
    comparison TEXT NOT NULL,       -- JSON [prompt, answer shown first, answer shown second]
    probability REAL,               -- that the answer shown first is better
    status TEXT NOT NULL,
    raw TEXT NOT NULL,              -- what the judge wrote, or the error
    details TEXT NOT NULL,          -- JSON: the model's exact name, log-probabilities, usage
    seconds REAL NOT NULL,
    asked_at REAL NOT NULL          -- Unix time
);
CREATE UNIQUE INDEX IF NOT EXISTS answered ON calls (question, judge, prompt_hash)
    WHERE status IN ('ok', 'tie', 'abstain');
"""


@dataclass(frozen=True, slots=True)
class Sampled:
    """K answers to the prompt at one position of the run's list."""

    position: int
    prompt: Prompt
    responses: list[str]
    stopped: list[bool]


@dataclass(frozen=True, slots=True)
class Call:
    """One question to a judge and what came back."""

    comparison: Comparison
    shown: str  # "first" or "swapped"
    verdict: Verdict
    seconds: float
    asked_at: float  # Unix time


def question_key(comparison: Comparison) -> str:
    """Identify a question: prompt, answers and their order."""
    return hashlib.sha256(_comparison_json(comparison).encode()).hexdigest()


class CallStore:
    """The open store; one process holds it at a time."""

    def __init__(self, path: Path) -> None:
        """Open or create the file.

        Raises: DataError where it is not a store; AlignmentError where another process holds it.
        """
        self.path = path
        with self._naming():
            self._connection = sqlite3.connect(path, timeout=1.0, isolation_level=None)
            # The exclusive lock keeps a second run out of the folder and dies with its process. In WAL mode with
            # synchronous=NORMAL a commit outlives the process, however it ends; a power cut may cost the last moments,
            # never the file. FULL would wait for the disk 80 times a second, too slow for a judge that is a function.
            for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=NORMAL"):
                self._connection.execute(f"PRAGMA {pragma}")
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, VERSION):
                raise DataError(
                    f"{path}: written by another version of this project (store {version}, this one reads {VERSION}); "
                    "finish the run with that version, or pass --overwrite true."
                )
            self._connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version={VERSION}; COMMIT;")

    def bind(self, **settings: Any) -> None:
        """Remember what the run depends on, or compare it with what was remembered.

        Raises: LineageError where a run that goes on would mix two policies, data sets or ways of sampling.
        """
        with self._transaction() as connection:
            before = {name: value for name, value in connection.execute("SELECT name, value FROM settings")}
            given = {name: json.dumps(value, sort_keys=True) for name, value in settings.items()}
            changed = [name for name in given if name in before and before[name] != given[name]]
            if changed:
                raise LineageError(
                    f"{self.path}: the interrupted run it belongs to had another "
                    f"{', '.join(name.replace('_', ' ') for name in changed)}; put it back to go on, or pass "
                    "--overwrite true to run anew."
                )
            connection.executemany("INSERT OR IGNORE INTO settings VALUES (?, ?)", given.items())

    def add_samples(self, samples: Iterable[Sampled]) -> None:
        """Keep sampled answers, all or none."""
        rows = [
            (sample.position, _json(sample.prompt), _json(sample.responses), _json(sample.stopped))
            for sample in samples
        ]
        with self._transaction() as connection:
            connection.executemany("INSERT INTO samples VALUES (?, ?, ?, ?)", rows)

    def samples(self) -> dict[int, Sampled]:
        """Return the answers sampled so far, by position."""
        with self._naming():
            rows = self._connection.execute("SELECT * FROM samples ORDER BY position").fetchall()
        return {
            position: Sampled(position, json.loads(prompt), json.loads(responses), json.loads(stopped))
            for position, prompt, responses, stopped in rows
        }

    def add_calls(self, calls: Iterable[Call], *, judge: str, prompt_hash: str) -> None:
        """Keep calls, failed ones too; once this returns, no kill loses them."""
        rows = [
            (
                question_key(call.comparison),
                call.shown,
                judge,
                prompt_hash,
                _comparison_json(call.comparison),
                call.verdict.probability,
                call.verdict.status,
                call.verdict.raw,
                _json(call.verdict.details),
                call.seconds,
                call.asked_at,
            )
            for call in calls
        ]
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO calls (question, shown, judge, prompt_hash, comparison, probability, status, raw, details,"
                " seconds, asked_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )

    def answered(self, *, judge: str, prompt_hash: str) -> dict[str, Verdict]:
        """Return the judge's answers by question; failures are not answers."""
        with self._naming():
            rows = self._connection.execute(
                "SELECT question, probability, status FROM calls WHERE judge = ? AND prompt_hash = ?"
                " AND status IN ('ok', 'tie', 'abstain')",
                (judge, prompt_hash),
            ).fetchall()
        return {question: Verdict(probability, status) for question, probability, status in rows}

    def models(self, *, judge: str, prompt_hash: str) -> list[str]:
        """Return the exact models that answered as this judge, as their endpoint names them."""
        with self._naming():
            rows = self._connection.execute(
                "SELECT DISTINCT json_extract(details, '$.model') FROM calls WHERE judge = ? AND prompt_hash = ?",
                (judge, prompt_hash),
            ).fetchall()
        return sorted(str(model) for (model,) in rows if model is not None)

    def close(self) -> None:
        """Fold the journal into the file and let go of it."""
        self._connection.close()

    def __enter__(self) -> "CallStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._naming():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            text = str(error)
            if "locked" in text:
                message = (
                    "another process is labelling into this folder; wait for it to end, or name another output_dir."
                )
                raise AlignmentError(f"{self.path}: {message}") from error
            if "full" in text or "disk I/O" in text:
                raise AlignmentError(
                    f"{self.path}: no room left on the disk ({text}); free some and run the same command again: it "
                    "goes on where it was."
                ) from error
            raise DataError(
                f"{self.path}: cannot be used as a store of calls ({text}); if it is damaged, pass --overwrite true to "
                "run anew."
            ) from error


def _comparison_json(comparison: Comparison) -> str:
    return _json([comparison.prompt, comparison.first, comparison.second])


def _json(value: Any) -> str:
    # ASCII keeps lone surrogates of a broken answer out of SQLite's UTF-8.
    return json.dumps(value)
