import math
import threading
import time

import pytest

from alignment.errors import JudgeError
from alignment.evaluate.judging import Comparison, Verdict
from alignment.evaluate.statistics import Bootstrap
from alignment.evaluate.winrate import Judged, agreement, comparisons, judge_pairs, win_rate


class Scripted:
    """Prefers by a table of answers' worth; `bias` is added for the answer shown first."""

    name = "scripted"
    prompt_hash = "0"

    def __init__(self, worth, bias=0.0):
        self.worth, self.bias, self.asked, self.lock = worth, bias, [], threading.Lock()

    def ask(self, comparison):
        with self.lock:
            self.asked.append((comparison.first, comparison.second))
        first, second = self.worth[comparison.first], self.worth[comparison.second]
        if first is None or second is None:
            return Verdict(None, "parse_error", "no idea")
        probability = 1 / (1 + math.exp(second - first - self.bias))
        return Verdict(probability, "tie" if probability == 0.5 else "ok")


WORTH = {"good": 1.0, "also good": 1.0, "bad": -1.0, "unreadable": None}
FIRST = ["good", "bad", "also good", "good", "unreadable"]
SECOND = ["bad", "good", "good", "good", "bad"]  # win, loss, tie, identical, failure


def judged_five(judge=None):
    judge = judge or Scripted(WORTH)
    return judge_pairs(judge, comparisons(["a", "b", "c", "d", "e"], FIRST, SECOND)), judge


def test_wins_plus_half_the_ties_over_the_judged_pairs():
    judged, _ = judged_five()
    rate = win_rate(judged, range(5), Bootstrap())
    assert rate["value"] == pytest.approx(0.5, rel=1e-12)  # (1 + 0 + 0.5 + 0.5) / 4; the failure is no label
    assert (rate["wins"], rate["losses"], rate["ties"], rate["identical"]) == (1, 1, 2, 1)
    assert rate["coverage"] == pytest.approx(4 / 5, rel=1e-12)
    assert rate["n"] == 4
    assert rate["statuses"] == {"ok": 2, "tie": 2, "parse_error": 1}
    # (sigmoid(2) + sigmoid(-2) + 0.5 + 0.5) / 4 = (1 + 1) / 4
    assert rate["mean_probability"] == pytest.approx(0.5, rel=1e-12)
    assert rate["order_consistency"] == 1.0  # of the three pairs asked in both orders, the failed one not among them


def test_identical_answers_are_not_asked_and_the_rest_in_both_orders():
    _, judge = judged_five()
    assert ("good", "good") not in judge.asked
    assert sorted(judge.asked) == sorted(
        [("good", "bad"), ("bad", "good")] * 2 + [("also good", "good"), ("good", "also good")]
        + [("unreadable", "bad")]  # failed, so the other order is not asked
    )  # fmt: skip


def test_a_judge_that_always_takes_the_first_gives_ties():
    judged, _ = judged_five(Scripted({**WORTH, "bad": 1.0}, bias=3.0))
    rate = win_rate(judged, range(5), Bootstrap())
    assert (rate["wins"], rate["losses"], rate["ties"]) == (0, 0, 4)
    assert rate["order_consistency"] == 0.0


def test_answers_to_one_prompt_are_one_cluster():
    judged, _ = judged_five()
    assert win_rate(judged, [0, 0, 1, 1, 1], Bootstrap())["clusters"] == 2


def test_no_usable_verdict_gives_no_number():
    judged = Judged([Verdict(None, "refusal")], 0, 1)
    rate = win_rate(judged, [0], Bootstrap())
    assert (rate["value"], rate["low"], rate["high"], rate["coverage"]) == (None, None, None, 0.0)


def test_too_many_failures_stop_with_the_last_one():
    with pytest.raises(JudgeError, match=r"judge scripted: 2 of 2 pairs failed.*0\.5.*parse_error: no idea"):
        judge_pairs(Scripted(WORTH), comparisons(["a", "b"], ["unreadable"] * 2, ["good", "bad"]))


class Slow(Scripted):
    def ask(self, comparison):
        time.sleep(0.05)
        return super().ask(comparison)


def test_a_dead_judge_is_noticed_early():
    judge = Slow(WORTH)
    many = comparisons([str(i) for i in range(500)], ["unreadable"] * 500, ["bad"] * 500)
    with pytest.raises(JudgeError, match="20 of 20"):
        judge_pairs(judge, many, max_concurrency=10)
    assert len(judge.asked) < 100


def test_a_judge_s_own_error_comes_through_at_once():
    class Refusing(Scripted):
        def ask(self, comparison):
            raise JudgeError("401: wrong key")

    with pytest.raises(JudgeError, match="401: wrong key"):
        judged_five(Refusing(WORTH))


def test_calls_run_side_by_side():
    begin = time.perf_counter()
    judge_pairs(Slow(WORTH), comparisons(list("abcdefgh"), ["good"] * 8, ["bad"] * 8), max_concurrency=8)
    assert time.perf_counter() - begin < 0.5  # one after the other: 16 calls, 0.8 s


def test_agreement_leaves_out_the_judge_s_ties_and_halves_equal_scores():
    verdicts = [
        Verdict(0.9, "ok"),
        Verdict(0.2, "ok"),
        Verdict(0.5, "tie"),
        Verdict(0.8, "ok"),
        Verdict(None, "refusal"),
    ]
    scores = [(2.0, 1.0), (3.0, 1.0), (9.0, 1.0), (0.0, 0.0), (1.0, 2.0)]
    found = agreement(Judged(verdicts, 0, 5), scores, range(5), Bootstrap())
    assert found["value"] == pytest.approx(0.5, rel=1e-12)  # (1 + 0 + 0.5) / 3
    assert found["n"] == 3
    assert agreement(Judged(verdicts[2:3], 0, 1), scores[2:3], [0], Bootstrap()) is None


def test_comparisons_keep_prompts_and_answers_together():
    assert comparisons(["p", "q"], ["a", "b"], ["c", "d"])[1] == Comparison("q", "b", "d")
