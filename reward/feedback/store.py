"""Every answer that was sampled and every judge call, in one SQLite file beside the labels.

Sampling and judging are paid for once: what stands here is never done again, however the process ended. Verdicts are
not kept: they are read from the replies, so the labels can be rebuilt without a call, by another parser too.
"""

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.data.rows import Prompt
from alignment.errors import AlignmentError, DataError, LineageError
from alignment.evaluate.judging import Comparison, Listing, Question
from reward.judges.calls import About, ChatReply, question_key
from reward.judges.prompting import well_formed

VERSION = 2
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
    key TEXT NOT NULL,              -- SHA-256 of judge, request and repeat: what makes two calls the same
    question TEXT NOT NULL,         -- SHA-256 of prompt and answers as shown
    asked TEXT NOT NULL,            -- JSON [prompt, answer shown first, ...]
    shown TEXT NOT NULL,            -- first | swapped, or the order of a list's answers
    repeat INTEGER NOT NULL,        -- which of several askings
    step TEXT NOT NULL,             -- verdict | reasoning | repair | critique | revision
    judge TEXT NOT NULL,            -- its name in the recipe
    model TEXT,                     -- exactly, as the endpoint names it
    prompt_hash TEXT NOT NULL,
    seed INTEGER,
    request TEXT NOT NULL,          -- JSON, all that was sent but the key that pays
    status TEXT NOT NULL,           -- ok | refusal | truncated | api_error
    rejected INTEGER NOT NULL DEFAULT 0,  -- 1: no verdict could be read from it, so it is no answer
    raw TEXT NOT NULL,              -- what the judge wrote, or the error
    tokens TEXT,                    -- JSON: tokens with their log-probabilities
    details TEXT NOT NULL,          -- JSON: finish reason, usage
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    cost REAL,                      -- in the currency of the recipe's prices
    seconds REAL NOT NULL,
    asked_at REAL NOT NULL          -- Unix time
);
CREATE UNIQUE INDEX IF NOT EXISTS answered ON calls (key) WHERE status = 'ok' AND NOT rejected;
CREATE INDEX IF NOT EXISTS by_key ON calls (key);
CREATE INDEX IF NOT EXISTS of_question ON calls (question, repeat);
"""


@dataclass(frozen=True, slots=True)
class Sampled:
    """K answers to the prompt at one position of the run's list."""

    position: int
    prompt: Prompt
    responses: list[str]
    stopped: list[bool]


@dataclass(frozen=True, slots=True)
class Totals:
    """What a store's calls took."""

    calls: int
    failed_calls: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None  # None where no call had a price
    seconds: float  # of waiting, summed over calls


class CallStore:
    """The open store; one process holds it at a time, and its threads share it."""

    def __init__(self, path: Path, *, rejected: bool = False) -> None:
        """Open or create the file; `rejected` replies count as known where they are to be read anew.

        Raises: DataError where it is not a store; AlignmentError where another process holds it.
        """
        self.path = path
        self.rejected = rejected
        self._lock = threading.RLock()
        with self._naming():
            self._connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
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
        rows = self._rows("SELECT * FROM samples ORDER BY position")
        return {
            position: Sampled(position, json.loads(prompt), json.loads(responses), json.loads(stopped))
            for position, prompt, responses, stopped in rows
        }

    def known(self, key: str) -> ChatReply | None:
        """Return the good reply to a call; failures, refusals and what could not be read are none."""
        rows = self._rows(
            "SELECT raw, tokens, details FROM calls WHERE key = ? AND status = 'ok' AND rejected <= ?"
            " ORDER BY rejected, id DESC LIMIT 1",
            key,
            int(self.rejected),
        )
        if not rows:
            return None
        raw, tokens, details = rows[0]
        return ChatReply("ok", raw, raw, json.loads(tokens) if tokens else [], json.loads(details))

    def keep(
        self, key: str, about: About, request: dict[str, Any], reply: ChatReply, *, seconds: float, asked_at: float
    ) -> None:
        """Keep a call, a failed one too; once this returns, no kill loses it."""
        usage = reply.details.get("usage") or {}
        row = (
            key,
            about.key(),
            _json(_asked(about.question)),
            _shown(about.question),
            about.question.repeat,
            about.step,
            about.judge,
            reply.details.get("model"),
            about.prompt_hash,
            request.get("seed"),
            _json(request),
            reply.status,
            well_formed(reply.text or reply.raw),
            _json(reply.tokens) if reply.tokens else None,
            _json(reply.details),
            _count(usage.get("prompt_tokens")),
            _count(usage.get("completion_tokens")),
            reply.cost,
            seconds,
            asked_at,
        )
        places = ", ".join("?" * len(row))
        columns = (
            "key, question, asked, shown, repeat, step, judge, model, prompt_hash, seed, request, status, raw, tokens,"
            " details, prompt_tokens, completion_tokens, cost, seconds, asked_at"
        )
        with self._lock, self._naming():  # one statement is a transaction of its own
            # Two threads may ask the same at the same time; the first answer is the answer.
            self._connection.execute(f"INSERT OR IGNORE INTO calls ({columns}) VALUES ({places})", row)

    def reject(self, question: Question, judge: str, calls: Sequence[str] | None = None) -> None:
        """Take note that a judge's replies to a question gave no verdict: asked again, it is asked anew.

        Args:
            calls: keys of those that could not be used, where a question takes several: one for each criterion of a
                rubric, say. None: all of them.
        """
        which, values = "", [question_key(question), question.repeat, judge]
        if calls is not None:
            which, values = f" AND key IN ({', '.join('?' * len(calls))})", [*values, *calls]
        with self._transaction() as connection:
            connection.execute(
                "UPDATE calls SET rejected = 1 WHERE question = ? AND repeat = ? AND status = 'ok' AND judge = ?"
                + which,
                values,
            )

    def models(self, judge: str) -> list[str]:
        """Return the exact models that answered as this judge, as their endpoint names them."""
        rows = self._rows("SELECT DISTINCT model FROM calls WHERE judge = ? AND model IS NOT NULL", judge)
        return sorted(str(model) for (model,) in rows)

    def unanswered(self) -> int:
        """Return how many different calls never got a good reply."""
        query = "SELECT COUNT(DISTINCT key) FROM calls WHERE key NOT IN (SELECT key FROM calls WHERE status = 'ok')"
        return int(self._rows(query)[0][0])

    def totals(self) -> Totals:
        """Return what all calls took."""
        query = (
            "SELECT COUNT(*), COALESCE(SUM(status != 'ok'), 0), COALESCE(SUM(prompt_tokens), 0),"
            " COALESCE(SUM(completion_tokens), 0), SUM(cost), COALESCE(SUM(seconds), 0.0) FROM calls"
        )
        return Totals(*self._rows(query)[0])

    def close(self) -> None:
        """Fold the journal into the file and let go of it."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> "CallStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(self, query: str, *values: Any) -> list[Any]:
        with self._lock, self._naming():
            return self._connection.execute(query, values).fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._naming():
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


def _asked(question: Question) -> list[Any]:
    if isinstance(question, Comparison):
        return [question.prompt, question.first, question.second]
    return [question.prompt, *(question.answers if isinstance(question, Listing) else [question.answer])]


def _shown(question: Question) -> str:
    if isinstance(question, Comparison):
        return question.shown
    return ",".join(map(str, question.order)) if isinstance(question, Listing) else "first"


def _count(tokens: Any) -> int:
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens > 0 else 0


def _json(value: Any) -> str:
    # ASCII keeps lone surrogates of a broken answer out of SQLite's UTF-8.
    return json.dumps(value)
