"""A store that was edited, damaged or taken over by another recipe: one line, no call lost, no wrong label."""

import os
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from alignment.calls.call import Call, CallContext, ChatReply, call_key
from alignment.calls.caller import Caller
from alignment.calls.replies import count_of
from alignment.calls.store import CallStore
from alignment.calls.store_rows import Sampled, unanswered
from alignment.config.schema.judges import judge_entry
from alignment.errors import AlignmentError, DataError, LineageError
from alignment.evaluate.judging import Comparison
from reward.judges import build_judge
from tests.calls.chat_server import FENCE, ChatServer, completion

QUESTION = Comparison("p", "a", "b")
REQUEST = {"messages": []}
ABOUT = CallContext("j", "h", QUESTION)
KEY = call_key(ABOUT, REQUEST)


def filled(path: Path, status: Any = "ok") -> None:
    with CallStore(path) as store:
        store.add_samples([Sampled(0, "p", ["a", "b"], [True, False])])
        store.keep(Call(KEY, ABOUT, REQUEST, ChatReply(status, "A", "A", details={"x": 1}), seconds=0.1))


def edit(path: Path, statement: str, *values: Any) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement, values)
    connection.close()


NO_JSON = [7, 1.5, b"A", b"\xff", "", "{", "[" * 5000, "9" * 5000, '"A"', "[1]", "NaN", '{"a": 1, "a": 2}']


@pytest.mark.parametrize("value", NO_JSON)
@pytest.mark.parametrize("column", ["prompt", "responses", "stopped", "tokens"])
def test_a_sampled_answer_that_was_edited_is_named(tmp_path: Path, column: str, value: Any) -> None:
    filled(tmp_path / "s")
    edit(tmp_path / "s", f"UPDATE samples SET {column} = ?", value)
    with CallStore(tmp_path / "s") as store:
        if column == "prompt" and value == '"A"':
            assert store.samples()[0].prompt == "A"
            return
        with pytest.raises(DataError) as caught:
            store.samples()
    assert str(tmp_path / "s") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "overwrite" not in str(caught.value)


@pytest.mark.parametrize("value", NO_JSON)
@pytest.mark.parametrize("column", ["raw", "tokens", "details"])
def test_a_call_that_was_edited_is_named_with_what_to_do(tmp_path: Path, column: str, value: Any) -> None:
    filled(tmp_path / "s")
    edit(tmp_path / "s", f"UPDATE calls SET {column} = ?", value)
    with CallStore(tmp_path / "s") as store:
        if column == "raw" and isinstance(value, str | int | float):  # SQLite itself makes a text of a number here
            assert store.known(KEY) is not None
            return
        with pytest.raises(DataError) as caught:
            store.known(KEY)
    assert "\n" not in str(caught.value)
    assert "overwrite" not in str(caught.value)
    if value != b"\xff":
        assert "row 1 of calls" in str(caught.value)
        assert "DELETE FROM calls WHERE id = 1" in str(caught.value)


@pytest.mark.parametrize(
    "column", ["prompt_tokens", "completion_tokens", "cost", "seconds", "rejected", "status", "model"]
)
@pytest.mark.parametrize("value", ["x", b"\xff", 1e400, -5, 2**62])
def test_other_columns_that_were_edited_end_nothing(tmp_path: Path, column: str, value: Any) -> None:
    filled(tmp_path / "s")
    edit(tmp_path / "s", f"UPDATE calls SET {column} = ?", value)
    with CallStore(tmp_path / "s") as store:
        store.totals()
        store.models("j")
        store.known(KEY)
        store.never_made({("j", "h", "q", "q"): 1})


def test_a_file_that_is_not_a_store_is_reported_without_advice_to_delete_it(tmp_path: Path) -> None:
    filled(tmp_path / "s")
    content = (tmp_path / "s").read_bytes()
    files = [content[: len(content) // 2], content[:100], b"SQLite format 3\0" + os.urandom(4096), b"x" * 5000]
    files += [content[:4096] + os.urandom(len(content) - 4096), content[:40] + b"\xff" * 60 + content[100:]]
    for place, broken in enumerate(files):
        path = tmp_path / f"broken{place}"
        path.write_bytes(broken)
        with pytest.raises(AlignmentError) as caught:
            read_all(path)
        assert "overwrite" not in str(caught.value)
        assert "\n" not in str(caught.value)


def read_all(path: Path) -> None:
    with CallStore(path) as store:
        store.samples()
        store.known(KEY)
        store.bind(x=1)


def test_a_store_of_another_schema_is_reported(tmp_path: Path) -> None:
    edit(tmp_path / "s", "CREATE TABLE calls (id INTEGER PRIMARY KEY, text TEXT)")
    with pytest.raises(DataError, match=r"cannot be used as a store of calls \(no such column"):
        CallStore(tmp_path / "s")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
def test_a_store_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    filled(tmp_path / "s")
    (tmp_path / "s").chmod(0o400)
    with pytest.raises(AlignmentError, match="cannot be written"):
        CallStore(tmp_path / "s")


def test_a_folder_in_its_place_is_reported(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    with pytest.raises(AlignmentError, match="cannot be written"):
        CallStore(tmp_path / "s")


def test_usage_and_models_of_any_type_are_kept_as_none(tmp_path: Path) -> None:
    odd: list[Any] = [
        "many",
        [1],
        -5,
        10**30,
        float("nan"),
        True,
        None,
        {"prompt_tokens": "x"},
        {"prompt_tokens": 10**30},
    ]
    with CallStore(tmp_path / "s") as store:
        for place, usage in enumerate(odd):
            details = {"usage": usage, "model": odd[-1 - place]}
            reply = ChatReply("ok", "A", "A", details=details)
            store.keep(Call(str(place), ABOUT, {"seed": usage}, reply))
            assert store.known(str(place)) is not None
        assert (store.totals().calls, store.totals().prompt_tokens) == (len(odd), 0)
    assert [count_of(usage) for usage in odd] == [None] * len(odd)


def test_a_store_is_its_owners_and_has_a_secret_of_its_own(tmp_path: Path) -> None:
    secrets = set()
    for name in "ab":
        with CallStore(tmp_path / name) as store:
            secrets.add(store.fence_secret)
            assert len(store.fence_secret) == 64
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        with CallStore(tmp_path / name) as store:
            assert store.fence_secret in secrets
    assert len(secrets) == 2


def test_fences_cannot_be_guessed_and_stay_those_of_the_run(tmp_path: Path) -> None:
    codes = []
    with ChatServer(lambda prompt, n: completion("A")) as server:
        entry = judge_entry(kind="openai", model="toy", base_url=server.url, api_key_env="MY_KEY", logprobs=False)
        for name in ("one", "one", "two"):
            with CallStore(tmp_path / name) as store:
                assert build_judge(entry, Caller(cache=store)).ask(QUESTION).probability == 1.0
            codes.append({found[1] for found in FENCE.findall(server.prompts[-1])})
        assert len(server.prompts) == 2  # the second run's question was the first's, so it was not asked again
    assert codes[0] == codes[1] != codes[2]


def test_a_store_from_before_there_were_secrets_is_gone_on_with(tmp_path: Path) -> None:
    with ChatServer(lambda prompt, n: completion("A")) as server:
        entry = judge_entry(kind="openai", model="toy", base_url=server.url, api_key_env="MY_KEY", logprobs=False)
        with CallStore(tmp_path / "s") as store:
            store.fence_secret = b""  # as it was then
            build_judge(entry, Caller(cache=store)).ask(QUESTION)
        edit(tmp_path / "s", "DELETE FROM settings")
        with CallStore(tmp_path / "s") as store:
            assert store.fence_secret == b""
            assert build_judge(entry, Caller(cache=store)).ask(QUESTION).probability == 1.0
        assert len(server.prompts) == 1


@pytest.mark.parametrize("value", [b"\xff", 7.5, "abc"])
def test_an_edited_secret_is_another_secret_or_reported(tmp_path: Path, value: Any) -> None:
    filled(tmp_path / "s")
    edit(tmp_path / "s", "UPDATE settings SET value = ? WHERE name = 'fence_secret'", value)
    if isinstance(value, bytes):
        with pytest.raises(DataError, match="fence_secret in settings"):
            CallStore(tmp_path / "s")
    else:
        with CallStore(tmp_path / "s") as store:
            assert store.fence_secret == str(value).encode()


@pytest.mark.parametrize("status", ["ok", "api_error", "refusal"])
def test_as_long_as_nothing_was_answered_other_answers_may_be_judged(tmp_path: Path, status: str) -> None:
    with CallStore(tmp_path / "calls.sqlite") as store:
        store.bind(policy={"sha256": "1"}, sampling={"seed": 1})
    filled(tmp_path / "calls.sqlite", status)
    assert bool(unanswered(tmp_path)) == (status != "ok")
    with CallStore(tmp_path / "calls.sqlite", may_rebind=True) as store:
        secret = store.fence_secret
        store.bind(policy={"sha256": "1"}, sampling={"seed": 1})
        assert len(store.samples()) == 1  # unchanged, so that they need not be sampled again
        for changed in ({"policy": {"sha256": "2"}}, {"answers": "given"}):
            if status == "ok":
                with pytest.raises(
                    LineageError, match=r"name another output_dir.*the 1 answers of the judge here are paid"
                ):
                    store.bind(**changed)
            else:
                store.bind(**changed)
                assert store.samples() == {}
                store.bind(policy={"sha256": "1"})
        assert store.fence_secret == secret
