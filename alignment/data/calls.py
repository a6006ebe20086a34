"""Conversion of tool calls and tool definitions of data sets to OpenAI's form."""

import json
from typing import Any

from alignment.data.fields import BadRow, checked_text, kind_of, text_in
from alignment.data.keys import UnreadKey, example, refuse_unread_of, unread
from alignment.data.rows import Message
from alignment.errors import JsonError, NotJson
from alignment.strict_json import parse, shown

_CALL = ("id", "type", "index", "function")
_FUNCTION = ("name", "arguments")
_TAG, _END_OF_THOUGHT = "<tool_call>", "</think>"


def calls_of(turn: dict[str, Any], what: str) -> list[dict[str, Any]]:
    """Return the calls of a message: `tool_calls`, a list or its JSON text, or OpenAI's older `function_call`."""
    given, older = turn.get("tool_calls"), turn.get("function_call")
    text = isinstance(given, str)
    if isinstance(given, str):
        given = _parsed(given, "'tool_calls'") if given.strip() else None
    if given and older:
        raise BadRow(f"{what} has 'tool_calls' and 'function_call'; keep one")
    if older:
        return [_call(older, "'function_call'", in_text=False)]
    if not given:
        return []
    if not isinstance(given, list):
        raise BadRow(f"'tool_calls' is {kind_of(given)}, not a list of calls")
    return [_call(call, "a call", in_text=text) for call in given]


def calls_in(value: Any, what: str) -> tuple[str, list[dict[str, Any]]]:
    """Return the text before the calls in ShareGPT's `function_call`, a thought, and the calls.

    A value that is not text is the call, or a list of calls.
    """
    if isinstance(value, list | dict) and value:
        functions = value if isinstance(value, list) else [value]
        return "", [_call(function, "a function call", in_text=False) for function in functions]
    words, call = "", text_in(value, what)
    text = call
    if text.lstrip().startswith("<think>") and _END_OF_THOUGHT in text:
        words, _, call = text.partition(_END_OF_THOUGHT)
        words += _END_OF_THOUGHT
    try:
        parsed = parse(call)
    except NotJson:
        raise BadRow(
            f'a function call is {shown(call)}, which is not JSON; write {{"name": …, "arguments": {{…}}}}, or '
            "give the message the role gpt if it is text or has the call in the model's own tags"
        ) from None
    except JsonError as error:
        raise BadRow(f"a function call: {error}") from None
    functions = parsed if isinstance(parsed, list) else [parsed]
    return words, [_call(function, "a function call", in_text=True) for function in functions]


def call_message(text: str, calls: list[dict[str, Any]]) -> Message:
    """Return the assistant's message with this text and these calls, as `calls_of` returns them.

    Its `content` has the calls as text, in the tags that Hermes and Qwen use, and `tool_calls` is their JSON for the
    chat templates that render them. A text may hold the same calls already, as that of our own labels does.
    """
    rendered = "\n".join(f"{_TAG}\n{json.dumps(call['function'], ensure_ascii=False)}\n</tool_call>" for call in calls)
    words, tag, rest = text.partition(_TAG)
    if tag:
        if (tag + rest).strip() != rendered:
            raise BadRow(f"the content of a message holds {_TAG} and calls in their own field; keep one")
        text = words.rstrip("\n")
    content = f"{text}\n{rendered}" if text else rendered
    return {"role": "assistant", "content": content, "tool_calls": json.dumps(calls, ensure_ascii=False)}


def _call(call: Any, what: str, *, in_text: bool) -> dict[str, Any]:
    """Return a call as OpenAI writes it: `function` with `name`, and `arguments` as an object.

    Args:
        in_text: the call is JSON text, in which `ignore_columns` has no effect.
    """
    if isinstance(call, str):
        call, in_text = _parsed(call, what), True
    if not isinstance(call, dict):
        raise BadRow(f"{what} is {kind_of(call)}, not an object with name and arguments")
    if "function" not in call:
        around = {key: value for key, value in call.items() if key not in _FUNCTION}
        call = {"type": "function", **around, "function": {key: call[key] for key in _FUNCTION if key in call}}
    function = call["function"]
    if not isinstance(function, dict):
        raise BadRow(f"the 'function' of {what} is {kind_of(function)}, not an object with name and arguments")
    _refuse_unread(call, what, _CALL, in_text=in_text)
    _refuse_unread(function, f"the 'function' of {what}", _FUNCTION, in_text=in_text)
    if "name" not in function:
        raise BadRow(f"{what} has no 'name'")
    text_in(function["name"], f"the 'name' of {what}")
    found = {**call, "function": {**function, "arguments": _arguments(function.get("arguments"))}}
    checked_text(found, "tool_calls")
    return found


def _refuse_unread(part: dict[str, Any], what: str, reads: tuple[str, ...], *, in_text: bool) -> None:
    if not in_text:
        refuse_unread_of(part, what, reads, numbers=True)
    elif keys := unread(part, reads, numbers=True):
        raise UnreadKey(
            f"{what} has {shown(keys[0])} ({example(part[keys[0]])}), which is not read; {', '.join(reads)} are read "
            "there. Rename it, or remove it from the JSON text"
        )


def _arguments(value: Any) -> dict[str, Any]:
    """Return a call's arguments as an object: OpenAI writes them as JSON text, which templates would quote."""
    found = value
    if isinstance(value, str):
        found = _parsed(value, "the 'arguments' of a call") if value.strip() else None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise BadRow(f"the 'arguments' of a call are {kind_of(found)}, not an object")
    return found


def _parsed(text: str, what: str) -> Any:
    try:
        return parse(text)
    except JsonError as error:
        raise BadRow(f"{what}: not JSON: {error}") from None


def tools_of(row: dict[str, Any]) -> str | None:
    """Return the row's `tools` as JSON, or None."""
    tools = row.get("tools")
    found = tools
    if isinstance(tools, str):
        try:
            found = parse(tools) if tools.strip() else None
        except JsonError as error:
            raise BadRow(f"'tools' is not JSON: {error}") from None
    if found in (None, [], {}):
        return None
    if isinstance(found, list) and any(isinstance(tool, str) for tool in found):
        found = [_parsed(tool, "a tool") if isinstance(tool, str) else tool for tool in found]
        tools = found
    if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in found):
        raise BadRow(f"'tools' is {kind_of(found)}, not a list of objects")
    checked_text(found, "tools")
    return tools if isinstance(tools, str) else json.dumps(tools, ensure_ascii=False)
