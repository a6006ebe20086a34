"""Every field of a reply of every wrong type: a status, never a label, never a traceback, and the store takes it."""

import copy
import math

import pytest

from alignment.calls.budget import Budget
from alignment.calls.prices import Prices, Tariff
from alignment.calls.replies import details_of
from alignment.calls.store import CallStore
from alignment.evaluate.judging import Comparison
from tests.calls.wire import Quiet, completion, encoded, judge_over, message

QUESTION = Comparison("p", "a", "b")
ODD = [
    None,
    True,
    False,
    0,
    -1,
    1.5,
    math.nan,
    math.inf,
    10**30,
    10**400,
    "",
    "A",
    "x" * 10_000,
    "\ud800",
    "\x00",
    [],
    {},
]
ODD += [["A"], [None], [[["A"]]], {"A": "A"}, {"content": "A"}, [{"type": "text", "text": "A"}], "stop", "length", "B"]


def places(value, path=()):
    """Yield the path of every part of a value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from places(part, (*path, key))


def changed(value, path, new):
    value = copy.deepcopy(value)
    if not path:
        return new
    part = value
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = new
    return value


@pytest.mark.parametrize(("kind", "whole"), [("openai", completion("A")), ("anthropic", message("A"))])
def test_every_field_of_every_type_gives_the_label_or_a_status(kind, whole, tmp_path):
    if kind == "anthropic":
        pytest.importorskip("anthropic")
    body = [b""]
    budget = Budget(Tariff({"toy": Prices(1.0, 1.0)}), max_cost=1e9)
    with CallStore(tmp_path / "s") as store:
        caller = Quiet(cache=store, budget=budget, max_retries=0)
        judge = judge_over(lambda request: body[0], kind, caller=caller)
        for path in places(whole):
            for place, odd in enumerate(ODD):
                body[0] = encoded(changed(whole, path, odd))
                verdict = judge.ask(Comparison(str(path), str(place), "b"))
                text_changed = path in (("choices", 0, "message", "content"), ("content", 0, "text")) and odd == "B"
                assert verdict.probability in ((0.0,) if text_changed else (1.0, None)), (path, odd)
                assert (verdict.status == "ok") == (verdict.probability is not None)
        totals = store.totals()
    assert math.isfinite(totals.cost)
    assert math.isfinite(budget.spent)


NO_LABEL = {
    "nothing": b"",
    "a page": b"<html>A</html>",
    "no UTF-8": b'{"choices": "\xff"}',
    "UTF-16": '{"choices": []}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + encoded(completion("A")),
    "deep": b'{"choices": ' + b"[" * 100_000,
    "deep but whole": b'{"choices": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "5,000 digits": encoded(completion("A")).replace(b"10,", b"9" * 5000 + b","),
    "twice": encoded(completion("A"))[:-1] + b', "choices": []}',
    "two choices": encoded({**completion("A"), "choices": completion("A")["choices"] * 2}),
    "an error beside it": encoded({**completion("A"), "error": {"message": "overloaded"}}),
    "cut off": encoded(completion("A"))[:-10],
    "more than one value": encoded(completion("A")) * 2,
    "a stream": b"data: " + encoded(completion("A")),
    "the user's turn": encoded(completion("A", message={"role": "user", "content": "A"})),
    "a call of tools": encoded(completion(None, finish_reason="tool_calls")),
    "an abort": encoded(completion("A", finish_reason="abort")),
    "an error as its end": encoded(completion("A", finish_reason="error")),
    "a cut": encoded(completion("A", finish_reason="MAX_TOKENS")),
    "a filter": encoded(completion("A", finish_reason="content_filter")),
    "a refusal": encoded(completion("A", message={"role": "assistant", "content": "A", "refusal": "No."})),
    "a list of parts": encoded(completion([{"type": "text", "text": "A"}])),
}


@pytest.mark.parametrize("name", NO_LABEL)
def test_an_incomplete_reply_gives_no_label(name):
    verdict = judge_over(lambda request: NO_LABEL[name]).ask(QUESTION)
    assert (verdict.probability, verdict.status != "ok") == (None, True)
    assert len(verdict.raw) <= 20_000


@pytest.mark.parametrize("finish", [None, "stop", "STOP", "eos_token", "stop_sequence", "end_turn"])
def test_the_ends_that_servers_name_are_known(finish):
    assert judge_over(lambda request: encoded(completion("A", finish_reason=finish))).ask(QUESTION).probability == 1.0


LOGPROBS = [True, 0, 1.5, "A", [1], {"content": 1}, {"content": "A"}, {"content": [1]}, {"content": [["A"]]}]
LOGPROBS += [{"content": [{}]}, {"content": [{"token": 1}]}, [{"token": "A"}], {"tokens": ["A"], "content": {"A": 1}}]


@pytest.mark.parametrize("logprobs", LOGPROBS)
def test_log_probabilities_of_any_type_are_not_label(logprobs):
    replies = [encoded(completion("A", logprobs=logprobs))]
    verdict = judge_over(lambda request: replies[0], logprobs=True).ask(QUESTION)
    assert verdict.probability is None
    assert verdict.status in ("api_error", "parse_error")


def test_counts_are_kept_where_they_are_ones():
    usage = {"prompt_tokens": 5, "completion_tokens": True, "total_tokens": 10**30, "cache_read": 7, "other": 3}
    names = {"prompt_tokens": "prompt_tokens", "completion_tokens": "completion_tokens", "total_tokens": "total_tokens"}
    assert details_of({"model": ["x"], "usage": usage}, None, names) == {
        "model": None,
        "usage": {"prompt_tokens": 5, "cache_read": 7},
    }
