"""Log-probabilities as servers send them: a label is right, or there is none."""

import json
import math

import pytest

from alignment.calls.logprobs import LogprobError, alternatives, token_index
from alignment.config.schema.judges import judge_entry
from alignment.evaluate.judging import Comparison, Rating
from reward.judges import build_judge
from reward.judges.ratings import find_rating, rating_probabilities
from reward.judges.verdicts import soft_probability
from tests.calls.chat_server import ChatServer, Reply, completion

LOG_HALF, LOG_FIFTH = math.log(0.5), math.log(0.2)
NO_LOGPROBS = [None, "-0.1", "", math.nan, math.inf, -math.inf, 0.5, 1e-3, True, False, [], {}, [-0.1], 10**400]
NO_LOGPROBS += [-(10**400), 1e300]


def token(text, logprob, *top, **more):
    return {"token": text, "logprob": logprob, "top_logprobs": [{"token": t, "logprob": p} for t, p in top], **more}


@pytest.mark.parametrize("bad", NO_LOGPROBS, ids=repr)
@pytest.mark.parametrize("letter", ["A", "B"])
@pytest.mark.parametrize("where", ["own", "top", "both", "other"])
def test_a_number_that_is_not_a_log_probability_gives_no_probability(bad, letter, where):
    other = "B" if letter == "A" else "A"
    own, in_top = (bad if where in ("own", "both") else LOG_HALF), (bad if where in ("top", "both") else LOG_HALF)
    top = [(letter, in_top), (other, bad if where == "other" else LOG_FIFTH)]
    assert soft_probability(token(letter, own, *top)) is None
    assert soft_probability(token(letter, own, *reversed(top))) is None


@pytest.mark.parametrize("missing", ["logprob", "token", "top_logprobs"])
def test_a_token_that_lacks_a_field_gives_no_probability(missing):
    whole = token("A", LOG_HALF, ("B", LOG_FIFTH))
    assert soft_probability(whole) == (pytest.approx(5 / 7), pytest.approx(0.7))  # 0.5 / (0.5 + 0.2)
    del whole[missing]
    assert soft_probability(whole) is None


@pytest.mark.parametrize("top", [None, [], {}, "AB", 3, [None], [[]], ["A"], [{"logprob": -1.0}], [{"token": "A"}]])
def test_alternatives_of_another_type_give_no_probability(top):
    assert soft_probability({"token": "A", "logprob": -0.1, "top_logprobs": top}) is None


def test_tokens_of_one_spelling_are_summed():
    top = [("A", math.log(0.3)), ("B", math.log(0.16)), ("A", math.log(0.2)), ("C", math.log(0.1))]
    # (0.3 + 0.2) / (0.3 + 0.2 + 0.16) = 0.7576; with one of the two lost it would be 0.2 / 0.36 = 0.5556
    for order in (top, top[::-1], sorted(top)):
        assert soft_probability(token("A", math.log(0.3), *order)) == (pytest.approx(0.5 / 0.66), pytest.approx(0.66))


def test_ratings_of_one_spelling_are_summed():
    top = [("7", math.log(0.3)), ("9", math.log(0.3)), ("7", math.log(0.2)), (" 7", math.log(0.1))]
    found = rating_probabilities("7", find_rating("7"), [token("7", math.log(0.3), *top)])
    assert found == {7: pytest.approx(0.6), 9: pytest.approx(0.3)}


@pytest.mark.parametrize("spelled", ["A", " A", "\nA", "▁A", "ĠA", "ĊA", "**A", "[[A", "A]]", "A.", '"A"', "(A)"])
def test_every_spelling_of_a_letter_counts(spelled):
    found = soft_probability(token("A", LOG_HALF, ("A", LOG_HALF), (spelled, LOG_FIFTH), ("B", math.log(0.1))), "A")
    assert found == (pytest.approx(0.7 / 0.8), pytest.approx(0.8))


@pytest.mark.parametrize("written", ["", "C", "Answer A", "Verdict: A", "A>>B", "AB", "a", "А", "AA"])
def test_a_written_token_that_is_not_a_letter_gives_no_probability(written):
    """Without it the other letter alone would have all the probability."""
    assert soft_probability(token(written, LOG_HALF, ("B", LOG_FIFTH)), "A") is None


def test_a_written_token_of_the_other_letter_gives_no_probability():
    assert soft_probability(token("B", LOG_HALF, ("B", LOG_HALF), ("A", LOG_FIFTH)), "A") is None


def test_probabilities_that_add_up_to_more_than_one_give_none():
    assert soft_probability(token("A", math.log(0.9), ("A", math.log(0.9)), ("B", math.log(0.2)))) is None
    assert soft_probability(token("A", math.log(0.9), *[("B", math.log(0.1))] * 3)) is None
    rounded = token("A", -0.105, ("A", -0.105), ("B", -2.3))  # 0.9003 + 0.1003
    assert soft_probability(rounded) == (pytest.approx(0.9, abs=1e-3), pytest.approx(1.0, abs=1e-3))


def test_a_letter_that_is_not_listed_and_could_be_the_likelier_one_gives_none():
    assert soft_probability(token("A", math.log(0.3), ("A", math.log(0.3)))) is None  # B may have up to 0.3
    assert soft_probability(token("A", math.log(0.9), ("A", math.log(0.9)))) == (1.0, pytest.approx(0.9))


@pytest.mark.parametrize("raw", ["QQ==", [256], [-1], [True], [65.0], {}, [66], [32, 66], 65])
def test_bytes_that_are_none_or_spell_another_letter_give_none(raw):
    assert soft_probability(token("A", LOG_HALF, ("A", LOG_HALF), ("B", LOG_FIFTH), bytes=raw)) is None
    top = [{"token": "A", "logprob": LOG_HALF, "bytes": raw}, {"token": "B", "logprob": LOG_FIFTH}]
    assert soft_probability({"token": "A", "logprob": LOG_HALF, "top_logprobs": top}) is None


def test_two_tokens_of_the_same_bytes_are_two_tokens():
    top = [{"token": t, "logprob": math.log(p), "bytes": list(t.encode())} for t, p in (("A", 0.3), ("A", 0.3))]
    top.append({"token": "B", "logprob": LOG_FIFTH, "bytes": [66]})
    found = soft_probability({"token": "A", "logprob": math.log(0.3), "top_logprobs": top, "bytes": [65]})
    assert found == (pytest.approx(0.75), pytest.approx(0.8))


def spelled(*pieces):
    return [{"token": piece, "logprob": -0.1} for piece in pieces]


@pytest.mark.parametrize(
    ("pieces", "reply", "position", "index"),
    [
        (["A"], "A", 0, 0),
        ([" A", "\n"], "A", 0, 0),
        (["▁Verdict", ":", "▁A", "</s>"], "Verdict: A", 9, 2),
        (["<think>", "B", " or A", "</think>", "\n\n", "A", "<|im_end|>"], "A", 0, 5),  # not the A of the reasoning
        (["<|channel|>", "final", "<|message|>", "B", "<|return|>"], "B", 0, 3),
        (["A", "", ""], "A", 0, 0),
        (["<b>", "A", "</b>"], "<b>A</b>", 3, 1),
    ],
)
def test_the_token_of_the_reply_s_own_letter_is_found(pieces, reply, position, index):
    assert token_index(reply, position, spelled(*pieces)) == index


@pytest.mark.parametrize(
    ("pieces", "reply"),
    [
        (["A", " is better.", "\n", "B"], "A"),  # tokens of a longer reply, whose verdict is B
        (["A", "\n\n", "B"], "B"),  # which of the two is the reply cannot be known
        (["so", " B", "A"], "A"),
        (["B"], "A"),
        ([], "A"),
        (["A", None], "A"),
        (["A", " C"], "A"),
    ],
)
def test_tokens_of_more_or_less_than_the_reply_do_not_fit(pieces, reply):
    assert token_index(reply, 0, spelled(*pieces)) is None


@pytest.mark.parametrize("value", [None, 3, "A", [], [{"token": "A"}]])
def test_an_invalid_token_gives_none(value):
    with pytest.raises(LogprobError):
        alternatives(value)


def answer(text, *content):
    body = json.loads(completion(text).body)
    body["choices"][0]["logprobs"] = {"content": list(content)}
    return Reply(json.dumps(body).encode())


def judge_of(server, **keys):
    keys = {"base_url": server.url, "api_key_env": "MY_KEY", "max_retries": 0, "repair": False, **keys}
    return build_judge(judge_entry(kind="openai", model="toy", **keys))


@pytest.mark.parametrize("bad", [None, "-0.1", math.nan, 0.5], ids=repr)
def test_a_judge_with_such_a_number_gives_no_label_in_either_order(bad):
    """The reply is A in both orders; B's number alone is a log-probability."""
    with ChatServer(lambda p, n: answer("A", token("A", bad, ("A", bad), ("B", LOG_FIFTH)))) as server:
        judge = judge_of(server)
        for question in (Comparison("p", "a", "b"), Comparison("p", "a", "b").swapped()):
            verdict = judge.ask(question)
            assert (verdict.probability, verdict.status) == (None, "parse_error")


@pytest.mark.parametrize("bad", [None, "-0.1", math.nan, 0.5], ids=repr)
def test_a_rating_with_such_a_number_is_not_a_score(bad):
    with ChatServer(lambda p, n: answer("8", token("8", bad, ("8", bad), ("2", LOG_FIFTH)))) as server:
        verdict = judge_of(server, asks="pointwise").ask(Rating("p", "a"))
    assert (verdict.scores, verdict.status) == (None, "parse_error")
    assert verdict.raw == "the log-probabilities do not match the reply 8"


CHOICES = [
    ({"A": 0.8, "B": 0.2}, "A", 0.8),
    ({"A": 0.5, "B": 0.5}, "B", 0.5),
    ({"A": 0.8, "B": 0.2}, "B", None),  # not the likelier one
    ({"A": "0.8", "B": 0.2}, "A", None),
    ({"A": True, "B": 0}, "A", None),
    ({"A": None, "B": 0.2}, "A", None),
    ({"A": math.nan, "B": 0.2}, "A", None),
    ({"A": 0.8, "B": 0.8}, "A", None),
    ({"A": 0.0, "B": 0.0}, "A", None),
    ({"A": 0.8}, "A", None),
    ({"A": 0.6, "B": 0.2, "C": 0.2}, "A", None),
    ({"A": 0.8, "B": 0.2}, "C", None),
    ({"A": 0.8, "B": 0.2}, ["A"], None),
]


@pytest.mark.parametrize(("probabilities", "choice", "expected"), CHOICES)
def test_a_typed_choice_has_the_probabilities_of_what_was_offered(probabilities, choice, expected):
    body = json.dumps({"answers": {"verdict": {"choice": choice, "probabilities": probabilities}}}).encode()
    with ChatServer(lambda p, n: Reply(body)) as server:
        judge = judge_of(server, endpoint="systemone")
        chat = judge.model.chat
        request = {"model": "toy", "questions": {"verdict": {"type": "choice", "criteria": {"A": None, "B": None}}}}
        reply = chat._choice(json.loads(body), request)
    found = soft_probability(reply.tokens[0], reply.text) if reply.status == "ok" else None
    assert (found and found[0]) == (expected if expected is None else pytest.approx(expected))
