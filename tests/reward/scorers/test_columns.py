"""Functions that receive columns of the data, in our signature and in TRL's, with a time limit."""

import asyncio
import re
import subprocess
import sys
import threading
import time

import pytest
import torch

from alignment.config.schema import scorer_entry
from alignment.errors import ScorerError
from alignment.train.policy_gradient.scoring import Answered, ScorePart, Scoring
from reward.scorers.function import FunctionScorer
from reward.time_limit import Expired, call_within

CHAT = [{"role": "user", "content": "2 + 2?"}]
ROWS = [{"answer": "4", "level": 1}, {"answer": "5"}]
TOKENS = [{"response_ids": [[7, 8]]}, {"response_ids": [[9]]}]


def ends_with(prompts, answers, answer):
    return [float(text.endswith(right)) for text, right in zip(answers, answer, strict=True)]


def every_column(prompts, answers, **columns):
    assert columns == {"answer": ["4", "5"], "level": [1, None]}
    return [1, 2]


def accuracy_reward(completions, answer, **kwargs):
    """TRL's signature, for prompts of messages; None where a row has no level."""
    texts = [completion[0]["content"] for completion in completions]
    assert kwargs == {"prompts": [CHAT, CHAT], "completion_ids": [[7, 8], [9]], "level": [1, None]}
    rows = zip(texts, answer, kwargs["level"], strict=True)
    return [None if level is None else float(right in text) for text, right, level in rows]


async def waits(prompts, answers, answer):
    async def ends(text, right):
        await asyncio.sleep(0)
        return float(text.endswith(right))

    return await asyncio.gather(*map(ends, answers, answer))


async def trl_waits(completions, **kwargs):
    await asyncio.sleep(0)
    return [float(len(completion[0]["content"])) for completion in completions]


async def waits_too_long(prompts, answers, answer):
    if "5" in answer:
        await asyncio.sleep(60)
    return [0.0 for _ in answers]


def plain_completions(prompts, completions, answer=None):
    return [float(isinstance(text, str)) for text in completions]


def needs_state(completions, trainer_state):
    return [0.0 for _ in completions]


def one_parameter(texts):
    return [0.0 for _ in texts]


def swapped(answers, prompts):
    return [0.0 for _ in answers]


def compares_the_prompt(completion, answer):
    return [0.0 for _ in answer]


def changes_what_it_is_given(prompts, answers, answer):
    for prompt in prompts:
        prompt.append({"role": "assistant", "content": "mine"})
    answer.clear()
    return [0.0 for _ in answers]


def sleeps(prompts, answers, answer):
    for right in answer:
        if right == "5":
            time.sleep(60)
    return [0.0 for _ in answers]


def never_ends(prompts, answers, answer):
    while "5" in answer:
        try:
            time.sleep(0.01)
        except Exception:
            continue
    return [0.0 for _ in answers]


def backtracks(prompts, answers, answer):
    return [float(bool(re.match(r"(a+)+$", "a" * 40 + "b"))) if right == "5" else 0.0 for right in answer]


def raises_at_five(prompts, answers, answer):
    return [1 / (5 - int(right)) for right in answer]


def scorer(name, **keys):
    return FunctionScorer.from_entry(scorer_entry(kind="function", function=f"{__name__}:{name}", **keys))


def scores(name, prompts=("a", "b"), answers=("4", "x"), rows=ROWS, tokens=(), **keys):
    stopped = [True for _ in answers]
    return scorer(name, **keys).score_rows(Answered(list(prompts), list(answers), stopped, tokens, rows))


def test_columns_are_passed_by_name():
    assert scores("ends_with") == [1.0, 0.0]
    assert scores("every_column") == [1.0, 2.0]


def test_a_function_of_trl_receives_what_trl_gives():
    assert scores("accuracy_reward", (CHAT, CHAT), ("It is 4", "5"), tokens=TOKENS) == [1.0, None]
    assert scores("plain_completions") == [1.0, 1.0]


def test_a_coroutine_is_awaited():
    assert scores("waits") == [1.0, 0.0]
    assert scores("trl_waits", (CHAT, CHAT), ("It is 4", "5"), columns=[], tokens=TOKENS) == [7.0, 1.0]


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("needs_state", {}, "takes trainer_state, which it is not given; give the parameters a default"),
        ("ends_with", {"columns": ["level"]}, r"takes answer, which it is not given; .*columns: \[NAME"),
        ("ends_with", {"columns": ["answer", "level"]}, "has no parameter level, and columns names it"),
        ("swapped", {}, "takes answers as parameter 1; the first two parameters are prompts and answers"),
        ("compares_the_prompt", {}, "takes completion as parameter 1"),
        ("one_parameter", {}, "has 1 parameters; it must take prompts and answers"),
    ],
)
def test_a_signature_that_cannot_be_called_is_refused_at_import(name, keys, message):
    with pytest.raises(ScorerError, match=message):
        scorer(name, **keys)


@pytest.mark.parametrize("keys", [{}, {"columns": ["answer", "completions"]}], ids=["kwargs", "named"])
def test_a_column_with_a_name_of_trl_s_arguments_is_refused(keys):
    rows = [{**row, "completions": "mine"} for row in ROWS]
    with pytest.raises(ScorerError, match=r"the data has a column completions, .* another name with columns: "):
        scores("accuracy_reward", (CHAT, CHAT), rows=rows, **keys)


def test_a_function_receives_copies():
    prompts, rows = [list(CHAT), list(CHAT)], [{"answer": "4"}, {"answer": "5"}]
    assert scores("changes_what_it_is_given", prompts, rows=rows) == [0.0, 0.0]
    assert prompts == [CHAT, CHAT]
    assert rows == [{"answer": "4"}, {"answer": "5"}]


def test_a_function_whose_source_does_not_show_its_columns_names_them(tmp_path, monkeypatch):
    (tmp_path / "blocks.py").write_text("if True:\n    def inside(prompts, answers, most=10):\n        return most\n")
    monkeypatch.chdir(tmp_path)
    entry = {"kind": "function", "function": "blocks:inside"}
    assert scorer_entry(**entry).columns_read == {}
    with pytest.raises(ScorerError, match=r"takes most, which its module's source does not show.*columns: \[NAME"):
        FunctionScorer.from_entry(scorer_entry(**entry))
    named = FunctionScorer.from_entry(scorer_entry(**entry, columns=["most"]))
    assert named.score_rows(Answered(["a"], ["b"], [True], columns=[{"most": 3}])) == [3.0]


@pytest.mark.parametrize("name", ["sleeps", "waits_too_long", "never_ends", "backtracks"])
def test_a_function_that_hangs_is_stopped_with_its_row(name):
    message = "did not return within timeout_seconds: 0.2; correct the function.* row: the prompt .b. and the answer .x"
    with pytest.raises(ScorerError, match=message):
        scores(name, timeout_seconds=0.2)


def test_a_function_that_raises_is_named_with_its_row():
    message = "raised ZeroDivisionError: division by zero; correct the function. The row: the prompt 'b' and the answer"
    with pytest.raises(ScorerError, match=message):
        scores("raises_at_five")


def test_a_limit_holds_outside_the_main_thread_too():
    raised = []

    def run():
        try:
            call_within(0.1, lambda: time.sleep(30))
        except Expired as fault:
            raised.append(fault)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(raised) == 1


def test_the_signal_of_another_timer_does_not_end_the_limit():
    import signal

    def ends_our_timer():
        signal.alarm(0)  # as math-verify's own limit does
        time.sleep(30)

    with pytest.raises(Expired):
        call_within(0.2, ends_our_timer)
    assert call_within(5, lambda: "done") == "done"
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_code_that_catches_everything_ends_the_process():
    code = (
        "import time\nfrom reward import time_limit\ntime_limit.AGAIN, time_limit.MOST = 0.05, 3\n"
        "def endless():\n    while True:\n        try:\n            time.sleep(1)\n        except:\n            pass\n"
        "time_limit.call_within(0.1, endless)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr == "error: code went on after its time limit of 0.1 s; it catches everything\n"


def test_nan_of_a_reward_model_stays_nan():
    scoring = Scoring((ScorePart(("reward",)), ScorePart((One(),), "one")))
    assert scoring.combine({"reward": torch.tensor([float("nan")])}, torch.tensor([[1.0]])).total.isnan().all()


class Half:
    """Applies to the first answer only."""

    def score_rows(self, given):
        return [3.0, *[None for _ in given.answers[1:]]]


class One:
    def score(self, prompts, answers, *, stopped):
        return [1.0 for _ in answers]


def test_a_scorer_that_does_not_apply_adds_nothing():
    scoring = Scoring((ScorePart((Half(),), "half", weight=2.0), ScorePart((One(),), "one")))
    outside = torch.tensor(scoring.score_outside(["a", "b"], ["x", "y"], stopped=[True, True]))
    scored = scoring.combine({}, outside)
    assert scored.total.tolist() == scored.normalized.tolist() == [7.0, 1.0]
    assert scored.parts["half"].isnan().tolist() == [False, True]


def test_an_answer_without_any_score_ends_the_run():
    scoring = Scoring((ScorePart((Half(),), "half"),))
    outside = torch.tensor(scoring.score_outside(["a", "b"], ["x", "y"], stopped=[True, True]))
    with pytest.raises(ScorerError, match="1 of 2 answers have no score: every scorer returned None"):
        scoring.combine({}, outside)
    assert scoring.combine({}, outside, monitored=True).parts["half"][0] == 3.0
