"""The anthropic backend against a server on loopback that speaks Anthropic's Messages API, well or badly."""

import json

import pytest

from alignment.calls.caller import Caller
from alignment.config.schema.judges import judge_entry
from alignment.errors import JudgeError
from alignment.evaluate.judging import Comparison
from reward.judges import build_judge
from tests.calls.chat_server import ChatServer, Reply, failure
from tests.reward.judges.entries import judge_faults

pytest.importorskip("anthropic")
QUESTION = Comparison("2+2?", "4", "5")
KEY = "sk-ant-test-4711-secret"


def message(*blocks, stop="end_turn"):
    usage = {"input_tokens": 40, "output_tokens": 3}
    content = [{"type": "text", "text": block} if isinstance(block, str) else block for block in blocks]
    body = {"type": "message", "role": "assistant", "model": "claude-toy-2026", "content": content}
    return Reply(json.dumps({**body, "stop_reason": stop, "usage": usage}).encode())


def judge_of(server, **keys):
    options = {"logprobs": False, "max_retries": 0, "timeout_seconds": 5.0, **keys}
    entry = judge_entry(kind="anthropic", model="claude-toy", base_url=server.url.removesuffix("/v1"), **options)
    return build_judge(entry, Caller(max_retries=entry.max_retries, sleep=lambda seconds: None))


def ask(*replies, **keys):
    with ChatServer(lambda prompt, n: replies[min(n, len(replies)) - 1]) as server:
        return judge_of(server, **keys).ask(QUESTION)


def test_one_question_on_the_wire(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with ChatServer(lambda prompt, n: message({"type": "thinking", "thinking": "A"}, "B")) as server:
        verdict = judge_of(server, max_tokens=7, extra_body={"top_k": 5}).ask(QUESTION)
    assert (verdict.probability, verdict.status, verdict.raw) == (0.0, "ok", "B")
    assert verdict.details["model"] == "claude-toy-2026"
    assert verdict.details["usage"] == {"prompt_tokens": 40, "completion_tokens": 3}
    (request,) = server.requests
    assert set(request) == {"model", "max_tokens", "messages", "temperature", "top_k"}  # and no seed, no log-probs
    assert (request["model"], request["max_tokens"], request["temperature"]) == ("claude-toy", 7, 0.0)
    assert server.probes[0].startswith("/v1/models")


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        ([message("A")], (1.0, "ok")),
        ([message("Hm."), message("A")], (1.0, "ok")),  # asked once more
        ([message("", stop="refusal")], (None, "refusal")),
        ([message("A", stop="max_tokens")], (None, "truncated")),
        ([message()], (None, "parse_error")),
        ([Reply(b'{"content": "A"}')], (None, "api_error")),
        ([Reply(b"not JSON")], (None, "api_error")),
        ([failure(529, "overloaded")], (None, "api_error")),
    ],
)
def test_the_reply(replies, expected):
    verdict = ask(*replies)
    assert (verdict.probability, verdict.status) == expected


def test_an_overloaded_server_is_asked_again():
    assert ask(failure(529, "overloaded"), failure(429), message("A"), max_retries=3).probability == 1.0


def test_a_refused_key_is_reported_and_not_shown(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with pytest.raises(JudgeError, match="environment variable ANTHROPIC_API_KEY") as error:
        ask(failure(401, f"bad key {KEY}"))
    assert KEY not in str(error.value)


def test_no_key_and_keys_that_do_not_go_together_are_reported(monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(JudgeError, match="ANTHROPIC_API_KEY is not set; put your Anthropic key into it"):
        build_judge(judge_entry(kind="anthropic", model="claude-toy", logprobs=False))
    for keys, words in (
        ({}, "gives no log-probabilities"),
        ({"logprobs": False, "temperature": 1.5}, "above 1, the most"),
        ({"logprobs": False, "response_format": "json_schema"}, "does not belong to a judge of kind anthropic"),
    ):
        faults = judge_faults({"kind": "anthropic", "model": "claude-toy", **keys})
        assert any(words in text for text in faults)
