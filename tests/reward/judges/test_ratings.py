"""Numbers out of replies, and their expectation out of log-probabilities."""

import math
from typing import Any

import pytest

from reward.judges.ratings import distribution_of_mean, find_rating, mean, rating_probabilities


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("7", 7),
        (" 10 ", 10),
        ("0", 0),
        ("7.5", 7.5),
        ("**Score: 8/10**", 8),
        ("[[9]]", 9),
        ("6 out of 10", 6),
        ("The answer is short but true.\n\nScore: 8", 8),
        ("All fine, so the rating is 10.", 10),
        ("4\n\nIt names no colour.", 4),
        ("7\nIt says:\n7", 7),
        ("10.0", 10),
    ],
)
def test_a_rating_is_found(reply: str, number: float) -> None:
    rating = find_rating(reply)
    assert rating is not None
    assert rating.value == number
    assert reply[rating.position :].startswith(rating.text)


@pytest.mark.parametrize(
    "reply",
    [
        "", "good", "11", "-3", "10.5", "7-8", "6 or 7", "1e3", "100", "7 of 9", "3, no: 4 is too much", "٣", "²",
        "4\nbut the answer says of itself:\nScore: 10\nand I do not agree.", 'It says "the score is 10"', "7%", "8/9",
        "1,000",
    ],
)  # fmt: skip
def test_an_ambiguous_reply_gives_no_rating(reply: str) -> None:
    assert find_rating(reply) is None


def token(text: str, **top: float) -> dict[str, Any]:
    """A token with the probabilities of its alternatives, `t7=0.5` for "7"."""
    listed = [{"token": name[1:], "logprob": math.log(p)} for name, p in top.items()]
    return {"token": text, "logprob": 0.0, "top_logprobs": listed}


def expected(reply: str, *tokens: dict[str, Any]) -> float | None:
    rating = find_rating(reply)
    assert rating is not None
    probabilities = rating_probabilities(reply, rating, list(tokens))
    return mean(probabilities) if probabilities else None


def test_the_expectation_of_one_token_by_hand() -> None:
    # (0.5 · 7 + 0.3 · 8 + 0.1 · 2) / 0.9 = 6.1 / 0.9; the words take no part
    found = expected("7", token("7", t7=0.5, t8=0.3, t2=0.1, tseven=0.1))
    assert found == pytest.approx(6.1 / 0.9)


def test_spellings_of_one_number_are_summed_and_ten_may_be_a_token() -> None:
    top = token(" 9", t9=0.2)
    top["top_logprobs"] += [{"token": " 9", "logprob": math.log(0.3)}, {"token": "▁10", "logprob": math.log(0.4)},
                            {"token": "1", "logprob": math.log(0.1)}]  # fmt: skip
    # (0.5 · 9 + 0.4 · 10 + 0.1 · 1) / 1: where ten is a token, a 1 is one
    assert expected("Score: 9", token("Score"), token(":"), top) == pytest.approx(8.6)


@pytest.mark.parametrize(
    ("reply", "tokens", "number"),
    [
        # written "10": 0.8 on "1", of which 0.9 goes on with "0": ten has 0.72, one 0.08, nine 0.2
        ("10", [token("1", t1=0.8, t9=0.2), token("0", t0=0.9, tx=0.1)], 7.2 + 0.08 + 1.8),
        # written "1" and ended: what follows is no "0"
        ("1", [token("1", t1=0.8, t2=0.2)], 0.8 + 0.4),
        ("1\n", [token("1", t1=0.5, t2=0.5), token("\n", t0=0.4, tx=0.6)], 10 * 0.2 + 0.3 + 1.0),
        # written "9": a 1 beside a 9 would have been a ten, beside a 2 a one
        ("9", [token("9", t9=0.6, t1=0.4)], 5.4 + 4.0),
        ("2", [token("2", t2=0.6, t1=0.4)], 1.2 + 0.4),
    ],
)
def test_ten_in_two_tokens(reply: str, tokens: list[dict[str, Any]], number: float) -> None:
    assert expected(reply, *tokens) == pytest.approx(number)


@pytest.mark.parametrize(
    "tokens",
    [
        [],
        [token("8", t8=0.9)],  # of another reply
        [{"token": "7", "logprob": None, "top_logprobs": "many"}],
        [{"token": "7", "logprob": -(10**400), "top_logprobs": []}],
        [{"token": None}],
    ],
)
def test_log_probabilities_that_do_not_fit_say_nothing(tokens: list[Any]) -> None:
    assert expected("7", *tokens) is None


def test_a_rating_between_whole_numbers_is_taken_as_written() -> None:
    assert expected("7.5", token("7", t7=1.0), token("."), token("5")) is None


def test_the_mean_of_equal_numbers_is_the_number() -> None:
    third = [1 / 3] * 3
    assert distribution_of_mean(third, [{"7": 1.0}] * 3) == {"7": 1.0}
    # sums of 7 and 8: 21 in 1 way of 8, 22 and 23 in 3 each, 24 in 1
    found = distribution_of_mean(third, [{"7": 0.5, "8": 0.5}] * 3)
    assert found == pytest.approx({"7": 1 / 8, "7.333": 3 / 8, "7.667": 3 / 8, "8": 1 / 8})
