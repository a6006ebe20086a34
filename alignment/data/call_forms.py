"""The form in which a chat template reads tool calls, and whether it writes their arguments."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from alignment.data.fields import texts_in
from alignment.data.stops import PROBE
from alignment.errors import DataError

Render = Callable[[list[dict[str, Any]]], str]  # of messages, without a generation prompt


def takes_text(render: Render) -> bool:
    """Whether a template writes arguments unchanged, so that they must be JSON text, as in OpenAI's format.

    DeepSeek's templates do. A template that converts them to JSON gets objects.
    """
    arguments = {PROBE: ["it's"]}
    text = json.dumps(arguments)
    for results in ([], [{"role": "tool", "content": "1", "name": "f", "tool_call_id": "call00000"}]):
        as_text, as_object = (_written(render, given, results) for given in (text, arguments))
        if as_text is not None and text in as_text:
            return as_object is None or str(arguments) in as_object  # Python's repr is not JSON
    return False


def as_text(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return calls whose arguments are JSON text."""
    functions = (call["function"] for call in calls)
    texts = [{**one, "arguments": json.dumps(one["arguments"], ensure_ascii=False)} for one in functions]
    return [{**call, "function": function} for call, function in zip(calls, texts, strict=True)]


def words_of(call: Any) -> Iterator[str]:
    """Yield the texts of a call that a template must write in some form: its name and the words of its arguments."""
    function = call.get("function", call) if isinstance(call, dict) else {}
    yield str(function.get("name", ""))
    for text in texts_in(function.get("arguments")):
        yield from re.findall(r"[A-Za-z0-9]{2,}", re.sub(r"\\.", " ", text))


def _written(render: Render, arguments: Any, results: list[dict[str, Any]]) -> str | None:
    call = {"type": "function", "id": "call00000", "function": {"name": "f", "arguments": arguments}}
    question, answer = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "", "tool_calls": [call]}
    try:
        return render([question, answer, *results])
    except DataError:
        return None


def wants_wrapper(render: Callable[[list[dict[str, Any]]], str]) -> bool:
    """Whether a template reads tools only in OpenAI's wrapper; `render` writes a question with tools."""
    tool = {"name": PROBE, "description": "d", "parameters": {"type": "object", "properties": {}}}
    written = []
    for given in (tool, {"type": "function", "function": tool}):
        try:
            written.append(PROBE in render([given]))
        except DataError:
            written.append(False)
    return written == [False, True]


def wrapped(tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return tools each in OpenAI's wrapper."""
    return [
        {"type": "function", "function": tool} if "name" in tool and "function" not in tool else tool for tool in tools
    ]
