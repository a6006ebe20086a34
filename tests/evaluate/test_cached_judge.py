import json
import threading

import pytest

from alignment.errors import JudgeError
from alignment.evaluate.cached_judge import VERDICTS, CachedJudge, only_failures
from alignment.evaluate.judging import Comparison, Verdict
from alignment.run.files import read_jsonl, write_jsonl


class Counting:
    name = "counting"
    prompt_hash = "1"

    def __init__(self, status="ok"):
        self.status, self.asked = status, 0

    def ask(self, comparison):
        self.asked += 1
        return Verdict(0.75 if self.status == "ok" else None, self.status, f"raw {self.asked}", {"model": "m-1"})


PAIR = Comparison([{"role": "user", "content": "why \ud83d\ude00?"}], "one", "two")


def test_a_question_is_asked_once_over_two_starts(tmp_path):
    first = Counting()
    asked = CachedJudge(first, tmp_path / "verdicts.jsonl").ask(PAIR)
    second = Counting()
    remembered = CachedJudge(second, tmp_path / "verdicts.jsonl").ask(PAIR)
    assert (first.asked, second.asked) == (1, 0)
    assert remembered == asked == Verdict(0.75, "ok", "raw 1", {"model": "m-1"})


def test_the_other_order_and_another_template_are_other_questions(tmp_path):
    judge = Counting()
    remembering = CachedJudge(judge, tmp_path / "verdicts.jsonl")
    remembering.ask(PAIR)
    remembering.ask(PAIR.swapped())
    assert judge.asked == 2
    changed = Counting()
    changed.prompt_hash = "2"
    CachedJudge(changed, tmp_path / "verdicts.jsonl").ask(PAIR)
    assert changed.asked == 1


def test_a_failure_is_written_and_asked_again(tmp_path):
    CachedJudge(Counting("api_error"), tmp_path / "verdicts.jsonl").ask(PAIR)
    again = Counting()
    assert CachedJudge(again, tmp_path / "verdicts.jsonl").ask(PAIR).status == "ok"
    rows = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["api_error", "ok"]


def test_a_line_cut_off_by_a_kill_is_asked_again_and_spoils_none(tmp_path):
    file = tmp_path / "verdicts.jsonl"
    CachedJudge(Counting(), file).ask(PAIR)
    CachedJudge(Counting(), file).ask(PAIR.swapped())
    file.write_bytes(file.read_bytes()[:-20])
    judge = Counting()
    remembering = CachedJudge(judge, file)
    remembering.ask(PAIR)
    remembering.ask(PAIR.swapped())
    assert judge.asked == 1
    assert [json.loads(line)["first"] for line in file.read_text().splitlines()] == ["one", "two"]


def test_threads_write_whole_lines(tmp_path):
    remembering = CachedJudge(Counting(), tmp_path / "verdicts.jsonl")
    pairs = [Comparison("p" * 5000, str(i), "x") for i in range(40)]
    threads = [threading.Thread(target=remembering.ask, args=(pair,)) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]) == 40


@pytest.mark.parametrize(
    "change",
    [
        {"probability": None},
        {"probability": 2},
        {"probability": True},
        {"probability": float("nan")},
        {"probability": "0.5"},
        {"details": None},
        {"status": "abstain"},
    ],
)
def test_a_kept_answer_that_is_not_a_verdict_is_refused(tmp_path, change):
    file = tmp_path / "verdicts.jsonl"
    CachedJudge(Counting(), file).ask(Comparison("p", "one", "two"))
    (row,) = read_jsonl(file)
    write_jsonl(file, [row | change])
    with pytest.raises(JudgeError, match="row 1 is not a verdict"):
        CachedJudge(Counting(), file)


def test_texts_with_every_end_of_a_line_are_remembered(tmp_path):
    file, judge = tmp_path / "verdicts.jsonl", Counting()
    asked = [Comparison(f"p{end}", f"a{end}b", "c\ud800") for end in "\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"]
    first = CachedJudge(judge, file)
    said = [first.ask(one) for one in asked]
    again = CachedJudge(judge, file)
    before = judge.asked
    assert [again.ask(one) for one in asked] == said
    assert judge.asked == before


@pytest.mark.parametrize(
    ("lines", "lost_nothing"),
    [
        (['{"status": "api_error"}\n', '{"status": "truncated"}\n'], True),
        (['{"status": "api_error"}\n', '{"status": "o'], True),
        ([], True),
        (['{"status": "api_error"}\n', '{"status": "tie"}\n'], False),
        (['{"status": "api\n', '{"status": "api_error"}\n'], False),
    ],
)
def test_verdicts_are_worth_nothing_where_all_failed(tmp_path, lines, lost_nothing):
    (tmp_path / VERDICTS).write_text("".join(lines))
    assert only_failures(tmp_path) == (frozenset({VERDICTS}) if lost_nothing else frozenset())
