"""Tools go to the chat template, and calls in an answer come back as `tool_calls`."""

import json

import pytest

from alignment.policy.policies import Policy
from alignment.serve.answer import Piece
from alignment.serve.models import Served
from alignment.serve.replies import ChatForm, Whole
from alignment.serve.requests import chat_request
from alignment.serve.token_texts import TokenTexts
from tests.models import make_tokenizer, save_tiny_model
from tests.serve.running import Running

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
TEMPLATE = (
    "{% if tools %}{% for tool in tools %}<|im_start|>system\n{{ tool | tojson }}<|im_end|>\n{% endfor %}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for call in m.tool_calls or [] %}"
    "CALL {{ call.function.name }} {{ call.function.arguments | tojson }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"place": "Oslo"}'}},
]
TALK = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
    {"role": "assistant", "content": None, "tool_calls": CALLS, "refusal": None, "audio": None},
    {"role": "tool", "tool_call_id": "c1", "content": "rain"},
]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A server of a model whose template writes tools."""
    path = save_tiny_model(
        tmp_path_factory.mktemp("tools") / "model", chat_template=TEMPLATE, max_position_embeddings=2048
    )
    with Running({"m": path}) as server:
        yield server


def prompt_of(running, **asked):
    """Return the prompt of a request, as the template writes it."""
    reply = running.client.chat.completions.create(model="m", messages=TALK, max_tokens=1, **asked)
    served = running.models.get("m")

    body = {"model": "m", "messages": TALK, **asked}
    parsed = chat_request(json.loads(json.dumps(body)))
    ids = served.chat_ids(parsed.messages, parsed.tools)
    assert len(ids) == reply.usage.prompt_tokens
    return served.policy.tokenizer.decode(ids)


def test_tools_and_earlier_calls_are_in_the_prompt(running):
    with_tools = prompt_of(running, tools=[TOOL])
    assert '"name": "weather"' in with_tools
    assert 'CALL weather {"place": "Oslo"}' in with_tools
    assert "<|im_start|>system\nBe brief.<|im_end|>" in with_tools
    assert "<|im_start|>tool\nrain<|im_end|>" in with_tools
    for without in (prompt_of(running), prompt_of(running, tools=[TOOL], tool_choice="none")):
        assert '"name": "weather"' not in without


def tagged(name, arguments):
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


ANSWERS = {
    "text": ("It rains.", "It rains.", []),
    "a call": (tagged("weather", '{"place": "Oslo"}'), None, [("weather", {"place": "Oslo"})]),
    "text and calls": (
        f"I look.\n{tagged('a', '{}')}\n{tagged('b', '{}')}", "I look.", [("a", {}), ("b", {})],
    ),
    "no call": ("<tool_call>\nnot JSON\n</tool_call>", "<tool_call>\nnot JSON\n</tool_call>", []),
    "a part of a tag": ("1 <tool", "1 <tool", []),
}  # fmt: skip


def read(calls):
    """Return names and arguments of calls."""
    return [(one["function"]["name"], json.loads(one["function"]["arguments"])) for one in calls]


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("name", ANSWERS)
def test_calls_in_an_answer(name, size):
    text, content, calls = ANSWERS[name]
    form = ChatForm("m", TokenTexts(make_tokenizer()), None, calls=True)
    whole = form.choice(0, Whole(text, finish="stop"))
    found = read(whole["message"].get("tool_calls", []))
    assert (whole["message"]["content"], found) == (content, calls)
    assert whole["finish_reason"] == ("tool_calls" if calls else "stop")
    parts = [text[start : start + size] for start in range(0, len(text), size)]
    pieces = [Piece(0, part, finish="stop" if place == len(parts) - 1 else None) for place, part in enumerate(parts)]
    deltas = [choice for piece in pieces for choice in form.parts(piece)]
    written = "".join(one["delta"].get("content", "") for one in deltas)
    assert written.strip() == (content or "")
    streamed = [call for one in deltas for call in one["delta"].get("tool_calls", [])]
    assert read(streamed) == calls
    assert [one["index"] for one in streamed] == list(range(len(calls)))
    assert deltas[-1]["finish_reason"] == whole["finish_reason"]


def test_without_tools_an_answer_is_text():
    form = ChatForm("m", TokenTexts(make_tokenizer()), None, calls=False)
    text = ANSWERS["a call"][0]
    assert form.choice(0, Whole(text, finish="stop"))["message"]["content"] == text


@pytest.mark.parametrize(
    ("who", "written"),
    [("", ()), (" {{ m.name }}", ("Zed", "Ann", "Bo")), ("{% if m.role == 'user' %}{{ m.name }}{% endif %}", ("Ann",))],
)
def test_names_of_speakers_go_to_the_template_if_it_writes_them(tmp_path, who, written):
    path = save_tiny_model(tmp_path / "model", chat_template=TEMPLATE.replace("{{ m.role }}", "{{ m.role }}" + who))
    policy = Policy.find(str(path))
    served = Served("model", policy, None, None, TokenTexts(policy.tokenizer))
    talk = [
        {"role": "system", "name": "Zed", "content": "Be."},
        {"role": "user", "name": "Ann", "content": "Hi"},
        {"role": "assistant", "name": "Bo", "content": "Ho"},
    ]
    text = policy.tokenizer.decode(served.chat_ids(chat_request({"model": "m", "messages": talk}).messages, None))
    assert tuple(name for name in ("Zed", "Ann", "Bo") if name in text) == written
