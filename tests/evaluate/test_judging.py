import pytest

from alignment.evaluate.judging import Comparison, Verdict, combine


def test_both_orders_are_averaged():
    # First is better with 0.9; asked the other way round the other is better with 0.3, so first with 0.7: mean 0.8
    combined = combine(Verdict(0.9, "ok"), Verdict(0.3, "ok"))
    assert combined.probability == pytest.approx(0.8, rel=1e-12)
    assert combined.status == "ok"


@pytest.mark.parametrize("bias", [0.1, 0.3, 0.7, 0.9, 0.9526, 1 / 3, 1.0])
def test_a_judge_of_order_alone_gives_an_exact_tie(bias):
    assert combine(Verdict(bias, "ok"), Verdict(bias, "ok")) == Verdict(0.5, "tie")


@pytest.mark.parametrize("failed", [Verdict(None, "api_error", "503"), Verdict(None, "abstain"), Verdict(None, "ok")])
def test_a_failed_side_fails_the_pair(failed):
    assert combine(Verdict(1.0, "ok"), failed).probability is None
    assert combine(failed, Verdict(1.0, "ok")) == Verdict(None, failed.status, failed.raw)


def test_swapping_swaps_the_answers_alone():
    assert Comparison("p", "a", "b").swapped() == Comparison("p", "b", "a")
