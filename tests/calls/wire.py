"""Judges of the HTTP backends whose endpoint is a function from requests to bodies, without a socket."""

import json
from types import SimpleNamespace

from alignment.calls.caller import Caller
from alignment.config.schema.judges import judge_entry
from reward.judges import build_judge


class Quiet(Caller):
    """Makes calls, but builds judges without checking the connection to their endpoint."""

    makes_no_calls = True


def judge_over(answer, kind="openai", *, caller=None, **keys):
    """Return a judge whose endpoint answers each request, a dictionary, with the bytes that `answer` returns."""
    keys = {"model": "toy", "base_url": "http://127.0.0.1:9/v1", "logprobs": False, "repair": False, **keys}
    caller = caller or Quiet(max_retries=0, sleep=lambda seconds: None)
    judge = build_judge(judge_entry(kind=kind, **keys), caller)
    judge.model.chat.client.post = lambda path, *, cast_to, body: SimpleNamespace(content=answer(body))
    return judge


def completion(text, **changed):
    """A whole chat completion as a value, with some fields of its choice changed."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}, **changed}
    usage = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
    return {"id": "1", "object": "chat.completion", "model": "toy-1", "choices": [choice], "usage": usage}


def message(text, **changed):
    """A whole message of Anthropic's as a value."""
    usage = {"input_tokens": 10, "output_tokens": 1}
    whole = {"type": "message", "role": "assistant", "model": "toy-1", "stop_reason": "end_turn", "usage": usage}
    return {**whole, "content": [{"type": "text", "text": text}], **changed}


def encoded(value):
    return json.dumps(value).encode()
