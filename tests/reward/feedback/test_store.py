import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from alignment.errors import AlignmentError, DataError, LineageError
from alignment.evaluate.judging import Comparison, Verdict
from reward.feedback.store import Call, CallStore, Sampled, question_key

WHO = {"judge": "j", "prompt_hash": "h"}
CHAT = [{"role": "user", "content": "Hi \ud800"}]  # a lone surrogate, which UTF-8 cannot hold


def call(first: str, second: str, verdict: Verdict, shown: str = "first") -> Call:
    return Call(Comparison("p", first, second), shown, verdict, 0.25, 1.0e9)


def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    samples = [Sampled(0, CHAT, ["a", "", "ü"], [True, False, True]), Sampled(1, "plain", ["x", "x"], [True, True])]
    ok = call("a", "b", Verdict(0.7, "ok", "A", {"mass": 0.9}))
    with CallStore(path) as store:
        store.add_samples(samples)
        store.add_calls([ok], **WHO)
    with CallStore(path) as store:
        assert store.samples() == {0: samples[0], 1: samples[1]}
        answered = store.answered(**WHO)
        assert list(answered) == [question_key(ok.comparison)]
        assert (answered[question_key(ok.comparison)].probability, answered[question_key(ok.comparison)].status) == (
            0.7,
            "ok",
        )
        assert store.answered(judge="other", prompt_hash="h") == {}
        assert store.answered(judge="j", prompt_hash="other") == {}
    row = sqlite3.connect(path).execute("SELECT shown, comparison, raw, details, seconds FROM calls").fetchone()
    assert row == ("first", '["p", "a", "b"]', "A", '{"mass": 0.9}', 0.25)


def test_orders_are_different_questions() -> None:
    comparison = Comparison("p", "a", "b")
    assert question_key(comparison) != question_key(comparison.swapped())
    assert question_key(Comparison("p", "a", "b")) == question_key(comparison)


@pytest.mark.parametrize("status", ["parse_error", "refusal", "truncated", "api_error"])
def test_failures_are_kept_but_are_no_answers(tmp_path: Path, status: str) -> None:
    with CallStore(tmp_path / "s") as store:
        for _ in range(2):
            store.add_calls([call("a", "b", Verdict(None, status, "why"))], **WHO)
        assert store.answered(**WHO) == {}
        store.add_calls([call("a", "b", Verdict(None, "abstain"))], **WHO)
        assert len(store.answered(**WHO)) == 1


def test_an_answer_cannot_be_kept_twice_and_a_batch_is_kept_whole_or_not(tmp_path: Path) -> None:
    with CallStore(tmp_path / "s") as store:
        store.add_calls([call("a", "b", Verdict(1.0, "ok"))], **WHO)
        batch = [call("c", "d", Verdict(1.0, "ok")), call("a", "b", Verdict(0.0, "ok"))]
        with pytest.raises(sqlite3.IntegrityError):
            store.add_calls(batch, **WHO)
        assert [verdict.probability for verdict in store.answered(**WHO).values()] == [1.0]


def test_a_changed_policy_is_refused(tmp_path: Path) -> None:
    with CallStore(tmp_path / "s") as store:
        store.bind(policy={"sha256": "1"}, sampling={"seed": 1})
    with CallStore(tmp_path / "s") as store:
        store.bind(policy={"sha256": "1"}, prompts="x")
        with pytest.raises(LineageError, match=r"another policy; put it back to go on, or pass --overwrite true"):
            store.bind(policy={"sha256": "2"})


def test_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "s"
    script = "import sys, pathlib; from reward.feedback.store import CallStore; CallStore(pathlib.Path(sys.argv[1]))"
    with CallStore(path) as store:
        store.bind(x=1)
        other = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
        assert "another process is labelling into this folder" in other.stderr
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)


def test_what_is_no_store_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(b"this is not a database, though it is longer than a header" * 40)
    with pytest.raises(DataError, match="cannot be used as a store of calls"):
        CallStore(path)
    newer = tmp_path / "newer"
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(DataError, match="store 99, this one reads 1"):
        CallStore(newer)


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    with CallStore(tmp_path / "s") as store:
        store._connection.execute("PRAGMA max_page_count=12")
        with pytest.raises(AlignmentError, match="no room left on the disk"):
            store.add_samples([Sampled(0, "p" * 1_000_000, ["a"], [True])])
        assert store.samples() == {}
