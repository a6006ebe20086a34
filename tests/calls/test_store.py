import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alignment.calls.call import Call, CallContext, ChatReply, Writing, call_key, question_key, swapped_key
from alignment.calls.store import CallStore, Sampled, Totals
from alignment.data.sampled import HASHES, KEY
from alignment.errors import AlignmentError, DataError, LineageError
from alignment.evaluate.judging import Comparison, Listing, Rating

CHAT = [{"role": "user", "content": "Hi \ud800"}]  # a lone surrogate, which UTF-8 cannot hold
QUESTION = Comparison("p", "a", "b")
TOKENS = [{"token": "A", "logprob": -0.1, "top_logprobs": []}]
USAGE = {"prompt_tokens": 70, "completion_tokens": 3}


def keep(store: CallStore, reply: ChatReply, question: Any = QUESTION, **context: Any) -> str:
    what = CallContext("j", "h", question, **context)
    request = {"messages": [{"role": "user", "content": "which?"}], "seed": 7}
    key = call_key(what, request)
    store.keep(Call(key, what, request, reply, seconds=0.25, asked_at=1.0e9))
    return key


def test_samples_that_were_written_are_read_again(tmp_path: Path) -> None:
    samples = [Sampled(0, CHAT, ["a", "", "ü"], [True, False, True]), Sampled(1, "plain", ["x", "x"], [True, True])]
    with CallStore(tmp_path / "s") as store:
        store.add_samples(samples)
    with CallStore(tmp_path / "s") as store:
        assert store.samples() == {0: samples[0], 1: samples[1]}


def test_the_samples_of_an_earlier_release_are_read_and_more_are_added(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with CallStore(path) as store:
        store.add_samples([Sampled(0, "p", ["a"], [True])])
    connection = sqlite3.connect(path)
    connection.executescript("ALTER TABLE samples DROP COLUMN tokens; PRAGMA user_version=2;")
    connection.close()
    record = {**dict.fromkeys(HASHES, "h"), "prompt_ids": [5], "response_ids": [[6, 1]]}
    for _ in range(2):  # opened twice
        with CallStore(path) as store:
            assert store.samples()[0] == Sampled(0, "p", ["a"], [True])
    with CallStore(path) as store:
        store.add_samples([Sampled(1, "q", ["b"], [True], [record])])
        assert store.samples()[1].of_answers() == {"stopped": [True], KEY: [record]}


@pytest.mark.parametrize(
    ("reply", "is_outcome"),
    [
        (ChatReply("truncated", "cut", "cut off"), True),
        (ChatReply("refusal", "no"), True),
        (ChatReply("api_error", "400: bad prompt"), True),
        (ChatReply("api_error", "busy", transient=True), False),
    ],
)
def test_outcomes_that_would_come_again_are_known_only_where_they_are_wanted(
    tmp_path: Path, reply: ChatReply, is_outcome: bool
) -> None:
    with CallStore(tmp_path / "s") as store:
        key = keep(store, reply)
        assert store.known(key) is None
    with CallStore(tmp_path / "s", outcomes=True) as store:
        known = store.known(key)
    assert (known is not None) == is_outcome
    if known is not None:
        assert (known.status, known.text) == (reply.status, reply.text or reply.raw)


def test_a_writing_is_kept_by_its_prompt_and_repeat(tmp_path: Path) -> None:
    with CallStore(tmp_path / "s") as store:
        keys = [keep(store, ChatReply("ok", str(repeat)), Writing(CHAT, repeat)) for repeat in (0, 1)]
        assert [store.known(key).text for key in keys] == ["0", "1"]
    asked = sqlite3.connect(tmp_path / "s").execute("SELECT asked, repeat FROM calls").fetchall()
    assert asked == [('[[{"role": "user", "content": "Hi \\ud800"}]]', repeat) for repeat in (0, 1)]
    assert question_key(Writing("p")) not in (question_key(Rating("p", "")), question_key(Listing("p", ())))


def test_a_call_is_one_row_with_all_there_is_to_know(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    with CallStore(path) as store:
        reply = ChatReply("ok", "A", "A", TOKENS, {"model": "toy-1", "usage": USAGE}, cost=0.5)
        key = keep(store, reply, QUESTION.swapped())
        again = store.known(key)
        assert again is not None
        assert (again.status, again.text, again.tokens, again.details) == ("ok", "A", TOKENS, reply.details)
        keep(store, ChatReply("ok", "B > A", "B > A"), Listing("p", ("b", "a"), repeat=2, order=(1, 0)), step="repair")
    columns = "asked, shown, repeat, step, judge, model, prompt_hash, seed, request, status, raw, tokens, details,"
    columns += " prompt_tokens, completion_tokens, cost, seconds"
    rows = sqlite3.connect(path).execute(f"SELECT {columns} FROM calls").fetchall()
    sent = ("h", 7, '{"messages": [{"role": "user", "content": "which?"}], "seed": 7}')
    tokens = '[{"token": "A", "logprob": -0.1, "top_logprobs": []}]'
    details = '{"model": "toy-1", "usage": {"prompt_tokens": 70, "completion_tokens": 3}}'
    assert rows == [
        ('["p", "b", "a"]', "swapped", 0, "verdict", "j", "toy-1", *sent, "ok", "A", tokens, details, 70, 3, 0.5, 0.25),
        ('["p", "b", "a"]', "1,0", 2, "repair", "j", None, *sent, "ok", "B > A", None, "{}", 0, 0, None, 0.25),
    ]


@pytest.mark.parametrize("status", ["refusal", "truncated", "api_error"])
def test_failures_are_kept_but_are_not_answers(tmp_path: Path, status: Any) -> None:
    with CallStore(tmp_path / "s") as store:
        for _ in range(2):
            key = keep(store, ChatReply(status, "why"))
        assert store.known(key) is None
        other = Comparison("p", "a", "another")
        lacking = {
            ("j", "h", question_key(each), swapped_key(each)): 3 for each in (QUESTION, QUESTION.swapped(), other)
        }
        assert store.never_made(lacking) == 3
        keep(store, ChatReply("ok", "A", "A"))
        assert store.known(key) is not None
        assert store.never_made(lacking) == 9
        assert (store.totals().calls, store.totals().failed_calls) == (3, 2)


def test_a_question_without_a_verdict_is_sent_and_parsed_again(tmp_path: Path) -> None:
    with CallStore(tmp_path / "s") as store:
        key = keep(store, ChatReply("ok", "gibberish", "gibberish"))
        other = keep(store, ChatReply("ok", "A", "A"), Comparison("p", "a", "b", repeat=1))
        store.reject(QUESTION, "other judge")
        assert store.known(key) is not None
        store.reject(QUESTION, "j")
        assert store.known(key) is None
        assert store.known(other) is not None
    with CallStore(tmp_path / "s", rejected=True) as store:
        found = store.known(key)
        assert found is not None
        assert found.text == "gibberish"
        keep(store, ChatReply("ok", "B", "B"))
        better = store.known(key)
        assert better is not None
        assert better.text == "B"


def test_an_answer_is_kept_once(tmp_path: Path) -> None:
    with CallStore(tmp_path / "s") as store:
        key = keep(store, ChatReply("ok", "A", "A"))
        keep(store, ChatReply("ok", "B", "B"))
        known = store.known(key)
        assert known is not None
        assert known.text == "A"


def test_totals_add_up(tmp_path: Path) -> None:
    with CallStore(tmp_path / "s") as store:
        assert store.totals() == Totals(0, 0, 0, 0, None, 0.0)
        keep(store, ChatReply("ok", "A", "A", details={"usage": USAGE, "model": "toy-1"}, cost=0.25))
        other = Comparison("p", "a", "b", repeat=1)
        keep(store, ChatReply("ok", "A", "A", details={"usage": {"prompt_tokens": True}}, cost=0.5), other)
        assert store.totals() == Totals(2, 0, 70, 3, 0.75, 0.5)
        assert store.models("j") == ["toy-1"]
        assert store.models("another") == []


def test_a_changed_policy_is_refused(tmp_path: Path) -> None:
    with CallStore(tmp_path / "s") as store:
        store.bind(policy={"sha256": "1"}, sampling={"seed": 1})
    with CallStore(tmp_path / "s") as store:
        store.bind(policy={"sha256": "1"}, prompts="x")
        with pytest.raises(LineageError, match=r"another policy; restore it to continue, or pass --overwrite true"):
            store.bind(policy={"sha256": "2"})


def test_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "s"
    script = "import sys, pathlib; from alignment.calls.store import CallStore; CallStore(pathlib.Path(sys.argv[1]))"
    with CallStore(path) as store:
        store.bind(x=1)
        other = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
        assert "another process uses this store" in other.stderr
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)


def test_an_invalid_store_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(b"this is not a database, though it is longer than a header" * 40)
    with pytest.raises(DataError, match="cannot be used as a store of calls"):
        CallStore(path)
    older = tmp_path / "older"
    connection = sqlite3.connect(older)
    connection.execute("PRAGMA user_version=1")
    connection.close()
    with pytest.raises(DataError, match="store 1, this one reads 3"):
        CallStore(older)


def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    with CallStore(tmp_path / "s") as store:
        store._connection.execute("PRAGMA max_page_count=14")
        with pytest.raises(AlignmentError, match="no room left on the disk"):
            store.add_samples([Sampled(0, "p" * 1_000_000, ["a"], [True])])
        assert store.samples() == {}
