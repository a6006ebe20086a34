"""Requests that are wrong get an error in OpenAI's form, and the server goes on."""

import json
import re
import socket
import time
from urllib.parse import urlsplit

import openai
import pytest

from tests.serve.running import TOKEN

TEXT = {"model": "base", "prompt": "the cat", "max_tokens": 2}
HI = {"role": "user", "content": "Hi"}
CHAT = {"model": "base", "messages": [HI], "max_tokens": 2}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


@pytest.fixture(autouse=True)
def goes_on(running):
    """After each request the server answers the next."""
    yield
    assert running.client.completions.create(**TEXT).usage.completion_tokens > 0


def refused(running, path, body, **options):
    """Return status, message, parameter and code of an error in OpenAI's form."""
    status, found = running.post(path, body, **options)
    assert set(found) == {"error"}, found
    error = found["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"].isprintable()
    assert len(error["message"]) <= 300
    assert "Traceback" not in error["message"]
    return status, error["message"], error["param"], error["code"]


BAD = {
    "no model": ({"prompt": "a"}, "model is missing", "model"),
    "no prompt": ({"model": "base"}, "prompt is missing", "prompt"),
    "10,000 stops": ({**TEXT, "stop": ["x"] * 10_000}, "stop has 10000 texts; the limit is 16", "stop"),
    "an empty stop": ({**TEXT, "stop": ""}, "stop[0] is not a text of 1 to 1000 characters", "stop"),
    "a long stop": ({**TEXT, "stop": "x" * 10_000}, "stop[0] is not", "stop"),
    "a stop of another type": ({**TEXT, "stop": [1]}, "stop[0] is not", "stop"),
    "too hot": ({**TEXT, "temperature": 2.5}, "temperature is 2.5; it must be from 0 to 2", "temperature"),
    "text for a number": ({**TEXT, "temperature": "1"}, "temperature is '1'; it must be a number", "temperature"),
    "not a number": ({**TEXT, "temperature": float("nan")}, "temperature is nan", "temperature"),
    "true for a number": ({**TEXT, "n": True}, "n is True; it must be an integer", "n"),
    "many answers": ({**TEXT, "n": 1000}, "n is 1000; it must be from 1 to 128", "n"),
    "more than the batch": ({**TEXT, "n": 33}, "n is 33; the server writes at most 32 answers together", "n"),
    "no nucleus": ({**TEXT, "top_p": 0}, "top_p is 0, which leaves no token", "top_p"),
    "an unknown key": ({**TEXT, "guided_json": {}}, "'guided_json' is not a key that this server reads", "guided_json"),
    "best of": ({**TEXT, "best_of": 3}, "best_of 3 is not supported", "best_of"),
    "a suffix": ({**TEXT, "suffix": "x"}, "suffix 'x' is not supported", "suffix"),
    "a huge seed": ({**TEXT, "seed": 10**30}, "seed is", "seed"),
    "a number beyond floats": ({**TEXT, "temperature": 10**400}, "temperature is 1000", "temperature"),
    "an integer beyond floats": ({**TEXT, "max_tokens": 10**400}, "max_tokens is 1000", "max_tokens"),
    "a bias of no token": ({**TEXT, "logit_bias": {"x": 1}}, "logit_bias has the key 'x', which is not", "logit_bias"),
    "a bias of an unknown token": ({**TEXT, "logit_bias": {"999": 1}}, "logit_bias has the token id 999", "logit_bias"),
    "two biases of one": ({**TEXT, "logit_bias": {"5": 1, "05": 2}}, "logit_bias has the token 5 twice", "logit_bias"),
    "a large bias": ({**TEXT, "logit_bias": {"5": 1000}}, "logit_bias of 5 is 1000", "logit_bias"),
    "an unknown token": ({**TEXT, "prompt": [[5, 100_000]]}, "prompt has the token id 100000", "prompt"),
    "a huge token": ({**TEXT, "prompt": [10**400]}, "prompt has the token id 1000", "prompt"),
    "a negative token": ({**TEXT, "prompt": [-1]}, "prompt has the token id -1", "prompt"),
    "no prompts": ({**TEXT, "prompt": []}, "prompt has 0 entries", "prompt"),
    "more answers than ever wait": ({**TEXT, "prompt": ["a"] * 40, "n": 32}, "are 1280 answers; at most", "prompt"),
    "an empty list of tokens": ({**TEXT, "prompt": [[]]}, "prompt[0] is neither text nor", "prompt"),
    "half a character": ({**TEXT, "prompt": "\ud800"}, "the body holds half of a surrogate pair", None),
    "options without a stream": ({**TEXT, "stream_options": {"include_usage": True}}, "needs stream", "stream_options"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_completion(running, name):
    body, message, param = BAD[name]
    status, found, key, _ = refused(running, "/completions", body)
    assert (status, key) == (400, param)
    assert message in found


BAD_CHAT = {
    "no messages": ({"model": "base"}, "messages is missing"),
    "none at all": ({**CHAT, "messages": []}, "'messages' is an empty list"),
    "text": ({**CHAT, "messages": "Hi"}, "messages is 'Hi'; it must be a list"),
    "no message": ({**CHAT, "messages": [7]}, "messages[0] is a number"),
    "no role": ({**CHAT, "messages": [{"content": "x"}]}, "has neither 'role' nor 'from'"),
    "an unknown role": ({**CHAT, "messages": [{"role": "king", "content": "x"}]}, "has the unknown role 'king'"),
    "an image": ({**CHAT, "messages": [{"role": "user", "content": [IMAGE]}]}, "has a part that is not text"),
    "two limits": ({**CHAT, "max_completion_tokens": 3}, "max_tokens and max_completion_tokens differ"),
    "alternatives alone": ({**CHAT, "top_logprobs": 3}, "top_logprobs needs logprobs: true"),
    "many alternatives": ({**CHAT, "logprobs": True, "top_logprobs": 21}, "it must be from 0 to 20"),
    "a schema": ({**CHAT, "response_format": {"type": "json_object"}}, "response_format"),
    "a forced call": ({**CHAT, "tools": [TOOL], "tool_choice": "required"}, "tool_choice 'required' is not supported"),
    "no tool": ({**CHAT, "tools": [{"name": "f"}]}, "tools[0] has no function with a name"),
    "an unknown key of a message": ({**CHAT, "messages": [{**HI, "stamp": "x"}]}, "'stamp' ('x'), which is not read."),
    "reasoning": ({**CHAT, "messages": [HI, {**HI, "role": "assistant", "reasoning_content": "hm"}]}, "no reasoning."),
    "a function": ({**CHAT, "functions": []}, "'functions' is not a key"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_CHAT)
def test_a_bad_chat(running, name):
    body, message = BAD_CHAT[name]
    status, found, _, _ = refused(running, "/chat/completions", body)
    assert status == 400
    assert message in found
    assert not {"ignore_columns", "chat_template", "recipe", "train"} & set(re.findall(r"\w+", found))


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[1]", b"null", b'{"model": "base", "model": "base"}', b"\xff\xfe", b"[" * 10**5]
)
def test_a_body_that_is_no_object(running, body):
    status, *_ = refused(running, "/chat/completions", body)
    assert status == 400


def test_a_body_that_is_too_large(running):
    status, message, *_ = refused(running, "/completions", {**TEXT, "prompt": "x" * 2**24})
    assert status == 413
    assert "8388608 bytes" in message


def test_an_unknown_model(running):
    status, message, param, code = refused(running, "/chat/completions", {**CHAT, "model": "gpt-5"})
    assert (status, param, code) == (404, "model", "model_not_found")
    assert "'gpt-5' does not exist; served are base, one, two, ia3" in message
    with pytest.raises(openai.NotFoundError):
        running.client.models.retrieve("gpt-5")


@pytest.mark.parametrize("asked", [{}, {"max_tokens": 100}])
def test_a_prompt_longer_than_the_context(running, asked):
    with pytest.raises(openai.BadRequestError) as refusal:
        running.chat("the quick brown fox " * 500, model="one", **asked)
    assert refusal.value.code == "context_length_exceeded"
    assert refusal.value.param == "messages"
    assert "has 256 tokens" in str(refusal.value)


def test_a_prompt_of_more_characters_than_are_tokenised(running):
    words = "a " * 2**20 + "b"
    for key, path, given in (
        ("prompt", "/completions", words),
        ("messages", "/chat/completions", [{**HI, "content": words}]),
    ):
        status, message, param, code = refused(running, path, {"model": "base", key: given})
        assert (status, param, code) == (400, key, "context_length_exceeded")
        assert "has 256 tokens; the prompt has 2097" in message
        assert "row" not in message


@pytest.mark.parametrize("path", ["/completions", "/chat/completions", "/load_lora_adapter", "/unload_lora_adapter"])
@pytest.mark.parametrize("token", ["wrong", "", "ä"])
def test_a_wrong_token(running, path, token):
    status, message, _, code = refused(running, path, TEXT, token=token.encode().decode("latin-1"))
    assert (status, code) == (401, "invalid_api_key")
    assert TOKEN not in message


def test_the_list_of_models_needs_the_token(running):
    for path in ("/models", "/models/base"):
        assert refused(running, path, None, token="wrong", method="GET")[0] == 401


@pytest.mark.parametrize(("path", "method", "status"), [("/nothing", "GET", 404), ("/completions", "GET", 405)])
def test_another_path_or_method(running, path, method, status):
    assert refused(running, path, None, method=method)[0] == status


def busy(running):
    return running.models.engines[0].in_flight


def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize("streams", [True, False])
def test_a_client_that_leaves_frees_its_place(running, streams):
    address = urlsplit(running.url)
    body = json.dumps({**TEXT, "max_tokens": 250, "n": 30, "logit_bias": {"1": -100}, "stream": streams}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    engine = running.models.engines[0]
    with socket.create_connection((address.hostname, address.port)) as client:
        client.sendall(head.encode() + body)
        assert until(lambda: len(engine.rows) == 30)
        answers = list(engine.rows)
        if streams:
            assert b"data: " in client.recv(2**16) + client.recv(2**16)
    assert until(lambda: busy(running) == 0)
    assert max(len(answer.ids) for answer in answers) < 250
