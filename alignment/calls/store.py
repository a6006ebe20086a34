"""The sampled answers and judge calls of a run, in one SQLite file beside the labels.

Stored answers and replies are never sampled or requested again, however the process ended. Verdicts are not stored:
they are parsed from the replies, so labels can be rebuilt without a call, also by another parser.
"""

import contextlib
import json
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.calls.call import Call, ChatReply, Writing, question_key
from alignment.calls.replies import count_of, well_formed
from alignment.calls.store_rows import Damage, Sampled, answers_in, fault_of, known_reply, sampled, text_of
from alignment.errors import DataError, LineageError
from alignment.evaluate.judging import Comparison, Listing, Question

VERSION = 3
BEFORE_TOKENS = 2  # whose samples have no tokens
GIVEN_OR_SAMPLED = ("answers", "policy")  # settings of which a run has one
FENCE_SECRET = "fence_secret"  # in `settings`, hexadecimal; stores of earlier versions have none
SAMPLES = "SELECT samples.*, fields FROM samples LEFT JOIN reasoning_fields USING (position) ORDER BY position"
SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS samples (
    position INTEGER PRIMARY KEY,   -- of the prompt in the run's list of prompts
    prompt TEXT NOT NULL,           -- JSON
    responses TEXT NOT NULL,        -- JSON list of texts
    stopped TEXT NOT NULL,          -- JSON list of booleans: false where cut off at max_new_tokens
    tokens TEXT                     -- JSON: their token ids, see alignment/data/sampled.py
);
CREATE TABLE IF NOT EXISTS reasoning_fields (  -- has a row for samples with reasoning in a field of its own
    position INTEGER PRIMARY KEY,
    fields TEXT NOT NULL            -- JSON list of booleans, one for each response
);
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,              -- SHA-256 of judge, request and repeat
    question TEXT NOT NULL,         -- SHA-256 of prompt and answers as shown
    asked TEXT NOT NULL,            -- JSON [prompt, answer shown first, ...]
    shown TEXT NOT NULL,            -- first | swapped, or the order of a list's answers
    repeat INTEGER NOT NULL,        -- which of several repeats
    step TEXT NOT NULL,             -- verdict | reasoning | repair | critique | revision | writing
    judge TEXT NOT NULL,            -- its name in the recipe
    model TEXT,                     -- its exact name at the endpoint
    prompt_hash TEXT NOT NULL,
    seed INTEGER,
    request TEXT NOT NULL,          -- JSON, everything that was sent except the API key
    status TEXT NOT NULL,           -- ok | refusal | truncated | api_error
    rejected INTEGER NOT NULL DEFAULT 0,  -- 1: it gave no verdict
    raw TEXT NOT NULL,              -- the text of the reply, or the error
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
class Totals:
    """Number, tokens, cost and time of a store's calls."""

    calls: int
    failed_calls: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None  # None without prices
    seconds: float  # summed over calls


class CallStore:
    """An open store; only one process at a time can open it, and its threads share it."""

    def __init__(self, path: Path, *, rejected: bool = False, may_rebind: bool = False, outcomes: bool = False) -> None:
        """Open or create the file, which only its owner may read.

        Args:
            rejected: `known` returns replies without a verdict too, to be parsed again.
            outcomes: `known` returns refusals, replies that were cut off and errors that would come again, too.
            may_rebind: while no call has a reply, another policy, data set or sampling may replace the previous one.

        Raises: DataError if it is not a store; AlignmentError if another process has it open.
        """
        self.path = path
        self.rejected = rejected
        self.may_rebind = may_rebind
        self.outcomes = outcomes
        self._lock = threading.RLock()
        with contextlib.suppress(OSError):  # it exists, or SQLite reports why it cannot be created
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
        with self._naming():
            self._connection = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
            # The exclusive lock excludes a second run from the folder and ends with its process. In WAL mode with
            # synchronous=NORMAL a commit survives the end of the process; a power failure may lose the last commits,
            # but not the file. FULL would wait for the disk 80 times a second, too slow for a judge that is a function.
            for pragma in ("locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=NORMAL"):
                self._connection.execute(f"PRAGMA {pragma}")
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, BEFORE_TOKENS, VERSION):
                raise DataError(
                    f"{path}: written by another version of this project (store {version}, this one reads {VERSION}); "
                    "finish the run with that version, or name another output_dir."
                )
            added = "ALTER TABLE samples ADD COLUMN tokens TEXT;" if version == BEFORE_TOKENS else ""
            self._connection.executescript(f"BEGIN IMMEDIATE; {added} {SCHEMA} PRAGMA user_version={VERSION}; COMMIT;")
            self.fence_secret = self._secret()

    def _secret(self) -> bytes:
        """Return the secret of the fences in this store's calls; a new store gets a random one."""
        with self._transaction() as connection:
            row = connection.execute("SELECT value FROM settings WHERE name = ?", (FENCE_SECRET,)).fetchone()
            if row is not None:
                return text_of(row[0], "the fence_secret in settings").encode()
            if connection.execute("SELECT EXISTS (SELECT 1 FROM calls)").fetchone()[0]:
                return b""
            made = secrets.token_hex(32)
            connection.execute("INSERT INTO settings VALUES (?, ?)", (FENCE_SECRET, made))
            return made.encode()

    def bind(self, **settings: Any) -> None:
        """Store the settings that the run depends on, or compare them with the stored ones.

        Raises: LineageError if a resumed run would mix two policies, data sets or sampling settings.
        """
        with self._transaction() as connection:
            before = {name: value for name, value in connection.execute("SELECT name, value FROM settings")}
            given = {name: json.dumps(value, sort_keys=True) for name, value in settings.items()}
            changed = [name for name in given if name in before and before[name] != given[name]]
            if any(name in given and other in before for name, other in (GIVEN_OR_SAMPLED, GIVEN_OR_SAMPLED[::-1])):
                changed.append("source of answers")
            if changed and self.may_rebind and self._nothing_answered(connection):
                connection.execute("DELETE FROM samples")
                connection.execute("DELETE FROM reasoning_fields")
                connection.execute("DELETE FROM settings WHERE name != ?", (FENCE_SECRET,))
            elif changed:
                raise LineageError(
                    f"{self.path}: the interrupted run that it belongs to had another "
                    f"{', '.join(name.replace('_', ' ') for name in changed)}; restore it to continue, or "
                    f"{self._anew(connection)}."
                )
            connection.executemany("INSERT OR IGNORE INTO settings VALUES (?, ?)", given.items())

    def _nothing_answered(self, connection: sqlite3.Connection) -> bool:
        """Whether the store has no reply of a judge and no label of a person."""
        people = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'people'").fetchone()
        labelled = people and connection.execute("SELECT 1 FROM people LIMIT 1").fetchone()
        return not labelled and not answers_in(connection)

    def _anew(self, connection: sqlite3.Connection) -> str:
        answers = answers_in(connection)
        if not answers:
            return "pass --overwrite true to run anew"
        return f"name another output_dir to run anew: the {answers} answers of the judge here are paid for"

    def add_samples(self, samples: Sequence[Sampled]) -> None:
        """Store sampled answers in one transaction."""
        rows = [
            (sample.position, *map(_json, (sample.prompt, sample.responses, sample.stopped, sample.tokens)))
            for sample in samples
        ]
        fields = [(sample.position, _json(sample.reasoning_field)) for sample in samples if sample.reasoning_field]
        with self._transaction() as connection:
            connection.executemany("INSERT INTO samples VALUES (?, ?, ?, ?, ?)", rows)
            connection.executemany("INSERT INTO reasoning_fields VALUES (?, ?)", fields)

    def samples(self) -> dict[int, Sampled]:
        """Return the answers sampled so far, by position.

        Raises: DataError with the row that was edited or damaged.
        """
        with self._naming():
            found = [sampled(row) for row in self._rows(SAMPLES)]
        return {sample.position: sample for sample in found}

    def known(self, key: str) -> ChatReply | None:
        """Return the reply of status "ok" to a call, unless it was rejected; with `outcomes`, see `__init__`.

        Raises: DataError with the row that was edited or damaged.
        """
        with self._naming():
            rows = self._rows(
                "SELECT id, status, raw, tokens, details FROM calls WHERE key = ? AND rejected <= ? AND (status = 'ok'"
                " OR ? AND (status != 'api_error' OR json_extract(details, '$.permanent')))"
                " ORDER BY rejected, id DESC LIMIT 1",
                key,
                int(self.rejected),
                int(self.outcomes),
            )
            return known_reply(rows[0]) if rows else None

    def keep(self, call: Call) -> None:
        """Store a call, failed or not; a kill after this returns does not lose it."""
        context, reply = call.context, call.reply
        usage, seed = reply.details.get("usage"), call.request.get("seed")
        counts = usage if isinstance(usage, dict) else {}
        model = reply.details.get("model")
        permanent = reply.status == "api_error" and not reply.transient
        row = (
            call.key,
            context.key(),
            _json(_asked(context.question)),
            _shown(context.question),
            context.question.repeat,
            context.step,
            context.judge,
            well_formed(model) if isinstance(model, str) else None,
            context.prompt_hash,
            seed if isinstance(seed, int) and abs(seed) < 2**63 else None,
            _json(call.request),
            reply.status,
            well_formed(reply.text or reply.raw),
            _json(reply.tokens) if reply.tokens else None,
            _json({**reply.details, "permanent": True} if permanent else reply.details),
            count_of(counts.get("prompt_tokens")) or 0,
            count_of(counts.get("completion_tokens")) or 0,
            reply.cost,
            call.seconds,
            call.asked_at,
        )
        places = ", ".join("?" * len(row))
        columns = (
            "key, question, asked, shown, repeat, step, judge, model, prompt_hash, seed, request, status, raw, tokens,"
            " details, prompt_tokens, completion_tokens, cost, seconds, asked_at"
        )
        with self._lock, self._naming():  # one statement is a transaction
            # Of two replies to the same call, the first one is stored.
            self._connection.execute(f"INSERT OR IGNORE INTO calls ({columns}) VALUES ({places})", row)

    def reject(self, question: Question, judge: str, calls: Sequence[str] | None = None) -> None:
        """Mark a judge's replies to a question as without a verdict, so that the next run repeats their calls.

        Args:
            calls: keys of the calls to mark, where a question has several, such as one for each criterion of a rubric.
                None: all.
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
        """Return the exact names of the models that answered as this judge."""
        rows = self._rows("SELECT DISTINCT model FROM calls WHERE judge = ? AND model IS NOT NULL", judge)
        return sorted(str(model) for (model,) in rows)

    def never_made(self, lacking: Mapping[tuple[str, str, str, str], int]) -> int:
        """Return how many of the calls that a dry run lacks were never made.

        A question that failed or gave no verdict, in this or the other order, may lack the calls that would follow.
        Lacking calls of any other question were never made.

        Args:
            lacking: as `DryCaller.lacking`.
        """
        query = (
            "SELECT DISTINCT question FROM calls WHERE judge = ? AND prompt_hash = ? AND key NOT IN"
            " (SELECT key FROM calls WHERE status = 'ok' AND NOT rejected)"
        )
        failed = {whose: {key for (key,) in self._rows(query, *whose)} for whose in {key[:2] for key in lacking}}
        return sum(
            count
            for (judge, prompt_hash, *keys), count in lacking.items()
            if failed[judge, prompt_hash].isdisjoint(keys)
        )

    def totals(self) -> Totals:
        """Return the totals of all calls."""
        query = (
            "SELECT COUNT(*), COALESCE(SUM(status != 'ok'), 0), COALESCE(SUM(prompt_tokens), 0),"
            " COALESCE(SUM(completion_tokens), 0), SUM(cost), COALESCE(SUM(seconds), 0.0) FROM calls"
        )
        return Totals(*self._rows(query)[0])

    def close(self) -> None:
        """Merge the journal into the file and close it."""
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
        """Turn errors of SQLite and damaged rows into errors with the file and a remedy."""
        try:
            yield
        except Damage as damage:
            raise DataError(f"{self.path}: {damage}; it was edited or damaged. {damage.remedy}") from None
        except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
            raise fault_of(self.path, error) from error


def _asked(question: Question | Writing) -> list[Any]:
    if isinstance(question, Writing):
        return [question.prompt]
    if isinstance(question, Comparison):
        return [question.prompt, question.first, question.second]
    return [question.prompt, *(question.answers if isinstance(question, Listing) else [question.answer])]


def _shown(question: Question | Writing) -> str:
    if isinstance(question, Comparison):
        return question.shown
    return ",".join(map(str, question.order)) if isinstance(question, Listing) else "first"


def _json(value: Any) -> str:
    # ASCII escapes lone surrogates, which SQLite's UTF-8 cannot store.
    return json.dumps(value)
