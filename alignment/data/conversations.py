"""Chat messages as data sets write them, brought to `{"role", "content"}`."""

import json
import re
from typing import Any

from alignment.data.fields import BadRow, checked, keys_of, kind_of, optional_text, text_in
from alignment.data.keys import TRAINING_MARKS, refuse_unread_of_message
from alignment.data.rows import Message, Prompt
from alignment.errors import JsonError, NotJson
from alignment.strict_json import parse, shown

ROLES = {
    "system": "system",
    "developer": "system",
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "tool": "tool",
    "ipython": "tool",
    "observation": "tool",
    "function": "tool",
    "function_response": "tool",
    "function_call": "function_call",
    "tool_call": "function_call",
}
REASONING = ("reasoning_content", "reasoning", "thinking")  # fields of a message, the first that has text is read
UNTRAINED = "untrained"  # a key of messages on their way to a demonstration
_HH_TURN = re.compile(r"\n\n(Human|Assistant):")


def messages_of(row: dict[str, Any], key: str) -> list[Message]:
    """Return the conversation under `key`, OpenAI's `role/content` or ShareGPT's `from/value`, without marks."""
    turns = marked_messages_of(row, key)
    if UNTRAINED in turns[-1]:
        raise BadRow(
            f"'{key}' ends with an answer that is marked with weight 0 or the like, and it is compared; keep one"
        )
    return [without_mark(turn) for turn in turns]


def marked_messages_of(row: dict[str, Any], key: str) -> list[Message]:
    """Return the conversation under `key`, its messages marked for `demonstrations.demonstration_of`."""
    if key not in row:
        raise BadRow(f"the field '{key}' is missing; found {keys_of(row)}")
    turns = row[key]
    if not isinstance(turns, list):
        raise BadRow(f"'{key}' is {kind_of(turns)}, not a list of messages")
    if not turns:
        raise BadRow(f"'{key}' is an empty list")
    return [message_of(turn, f"'{key}[{index}]'") for index, turn in enumerate(turns)]


def without_mark(message: Message) -> Message:
    """Return a message without the mark of one that is not trained."""
    return {key: value for key, value in message.items() if key != UNTRAINED} if UNTRAINED in message else message


def message_of(turn: Any, what: str) -> Message:
    """Bring one message to `role` and `content`.

    A tool call becomes an assistant message whose `content` is the call as text, in the tags that Hermes and Qwen use,
    and whose `tool_calls` is OpenAI's list as JSON for the chat templates that render it themselves.
    """
    if not isinstance(turn, dict):
        raise BadRow(f"{what} is {kind_of(turn)}, not a message")
    speaker, body = ("role", "content") if "role" in turn else ("from", "value")
    if speaker not in turn:
        raise BadRow(f"{what} has neither 'role' nor 'from'; found {keys_of(turn)}")
    role = ROLES.get(str(turn[speaker]).lower())
    if role is None:
        raise BadRow(f"{what} has the unknown role {shown(turn[speaker])}; known are {', '.join(ROLES)}")
    if len(turn) == 2 and body in turn and role != "function_call":  # no other key, as in most messages
        return {"role": role, "content": _content(turn[body], f"{what} '{body}'")}
    reads: tuple[str, ...] = (speaker, body, "name", "tool_calls", "tool_call_id", "tools")
    extras: Message = {}
    if role in ("assistant", "function_call"):
        reads = (*reads, *REASONING, *TRAINING_MARKS)
        extras = _extras(turn, what)
    if not turn.keys() <= set(reads):
        refuse_unread_of_message(turn, what, reads)
    if role == "function_call":
        return {**call_message(text_in(turn.get(body), f"{what} '{body}'"), []), **extras}
    if turn.get("tool_calls"):
        if role != "assistant":
            raise BadRow(f"{what} has 'tool_calls' and the role {role}; only the assistant calls tools")
        return {**call_message(optional_text(turn, body), turn["tool_calls"]), **extras}
    if body not in turn:
        raise BadRow(f"{what} has no '{body}'")
    message = {"role": role, "content": _content(turn[body], f"{what} '{body}'"), **extras}
    for extra in ("name", "tool_call_id"):
        if turn.get(extra) is not None:
            message[extra] = text_in(turn[extra], f"{what} '{extra}'")
    tools = tools_of(turn)  # that a prompt of our own labels carries
    return {**message, "tools": tools} if tools else message


def _extras(turn: dict[str, Any], what: str) -> Message:
    """Return the reasoning of a message of the assistant, and the mark of one that is not trained."""
    reasoning = [text_in(turn[key], f"{what} '{key}'", empty=True) for key in REASONING if turn.get(key) is not None]
    found = {text for text in reasoning if text.strip()}
    if len(found) > 1:
        raise BadRow(f"{what} has two different texts of reasoning, under {', '.join(REASONING)}; keep one")
    extras = {"reasoning": found.pop()} if found else {}
    marks = {key: turn[key] for key in TRAINING_MARKS if turn.get(key) is not None}
    for key, value in marks.items():
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise BadRow(f"{what} has '{key}' {shown(value)}; a message is trained or not: give 1 or 0, true or false")
    if len({bool(value) for value in marks.values()}) > 1:
        raise BadRow(f"{what} has {' and '.join(marks)} that contradict each other; keep one")
    return {**extras, UNTRAINED: "yes"} if marks and not any(marks.values()) else extras


def _content(value: Any, what: str) -> str:
    if isinstance(value, list):  # OpenAI's content parts
        for part in value:
            if not isinstance(part, dict) or part.get("type") != "text":
                raise BadRow(f"{what} has a part that is not text; only text is supported")
        return "".join(text_in(part.get("text"), what, empty=True) for part in value)
    return text_in(value, what, empty=True)


def call_message(text: str, calls: Any) -> Message:
    """Make a message of the assistant from its words and calls; without calls, the text holds them as JSON."""
    if not calls:
        try:
            parsed = parse(text)
        except NotJson:
            return {"role": "assistant", "content": text}
        except JsonError as error:
            raise BadRow(f"a function call: {error}") from None
        functions = parsed if isinstance(parsed, list) else [parsed]
        if not all(isinstance(function, dict) and "name" in function for function in functions):
            raise BadRow("a function call has no 'name'")
        calls = [{"type": "function", "function": function} for function in functions]
        text = ""
    elif isinstance(calls, str):  # of our own labels, whose content holds the calls too
        calls, text = _parsed(calls, "'tool_calls'"), text.partition("<tool_call>")[0].rstrip("\n")
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise BadRow("'tool_calls' is not a list of calls")
    calls = [{**call, "function": _with_arguments(call["function"])} if "function" in call else call for call in calls]
    checked(calls, "tool_calls")
    functions = [call.get("function", call) for call in calls]
    rendered = "\n".join(f"<tool_call>\n{json.dumps(f, ensure_ascii=False)}\n</tool_call>" for f in functions)
    content = f"{text}\n{rendered}" if text else rendered
    return {"role": "assistant", "content": content, "tool_calls": json.dumps(calls, ensure_ascii=False)}


def _with_arguments(function: Any) -> Any:
    """Return a call with its arguments as an object: OpenAI writes them as JSON text, which templates would quote."""
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return function
    text = function["arguments"]
    found = _parsed(text, "the 'arguments' of a call") if text.strip() else {}
    if not isinstance(found, dict):
        raise BadRow(f"the 'arguments' of a call are {kind_of(found)}, not an object")
    return {**function, "arguments": found}


def _parsed(text: str, what: str) -> Any:
    try:
        return parse(text)
    except JsonError as error:
        raise BadRow(f"{what}: not JSON: {error}") from None


def tools_of(row: dict[str, Any]) -> str | None:
    """Return the row's `tools` as JSON, or None."""
    tools = row.get("tools")
    if tools in (None, "", "[]", []):
        return None
    found = tools
    if isinstance(tools, str):
        try:
            found = parse(tools)
        except JsonError as error:
            raise BadRow(f"'tools' is not JSON: {error}") from None
    if isinstance(found, list) and any(isinstance(tool, str) for tool in found):
        found = [_parsed(tool, "a tool") if isinstance(tool, str) else tool for tool in found]
        tools = found
    if not isinstance(found, list) or not all(isinstance(tool, dict) for tool in found):
        raise BadRow(f"'tools' is {kind_of(found)}, not a list of objects")
    checked(found, "tools")
    return tools if isinstance(tools, str) else json.dumps(tools, ensure_ascii=False)


def with_system(messages: list[Message], system: str) -> list[Message]:
    """Put a row's `system` before its messages; a system message that differs from it is a `BadRow`."""
    if not system.strip():
        return messages
    if messages and messages[0]["role"] == "system":
        if messages[0]["content"].strip() != system.strip():
            raise BadRow("'system' differs from the system message that the conversation begins with; keep one")
        return messages
    return [{"role": "system", "content": system}, *messages]


def carrying_tools(messages: list[Message], tools: str | None) -> list[Message]:
    """Keep the tools on the first message, under `tools`, where a chat prompt travels alone."""
    return [{**messages[0], "tools": tools}, *messages[1:]] if tools else messages


def carried_tools(messages: list[Message]) -> tuple[list[Message], str | None]:
    """Undo `carrying_tools`."""
    if not messages or "tools" not in messages[0]:
        return messages, None
    first = {key: value for key, value in messages[0].items() if key != "tools"}
    return [first, *messages[1:]], messages[0]["tools"]


def with_tools(messages: list[Message], tools: str | None) -> list[Message]:
    """Tell of the tools in the system message, for chat templates that have no place for them."""
    if not tools:
        return messages
    note = f"You may call these tools, as <tool_call>\n{{json}}\n</tool_call>:\n{tools}"
    if messages and messages[0]["role"] == "system":
        return [{**messages[0], "content": f"{messages[0]['content']}\n\n{note}".strip()}, *messages[1:]]
    return [{"role": "system", "content": note}, *messages]


def split_answer(messages: list[Message], what: str) -> tuple[list[Message], str]:
    """Split a conversation into the prompt and its last message, which must be the assistant's and not blank."""
    last = messages[-1]
    if last["role"] != "assistant":
        raise BadRow(f"{what} ends with a message of the {last['role']}, so there is no answer")
    if not last["content"].strip():
        raise BadRow(f"{what} ends with an empty answer")
    if len(messages) < 2:
        raise BadRow(f"{what} holds an answer without a prompt")
    return messages[:-1], _with_reasoning(last)


def parse_hh(text: str, what: str) -> list[Message]:
    r"""Read Anthropic HH's transcript: turns that begin with "\n\nHuman:" or "\n\nAssistant:", at the start without."""
    parts = _HH_TURN.split("\n\n" + text.lstrip())
    if len(parts) < 3 or parts[0].strip():
        raise BadRow(f"{what} does not begin with '\\n\\nHuman:'")
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = zip(parts[1::2], parts[2::2], strict=True)
    return _merged([{"role": roles[role], "content": body.strip()} for role, body in turns])


def common_prompt(chosen: list[Message], rejected: list[Message]) -> tuple[list[Message], str, str]:
    """Split two conversations into what they share, up to the last shared user turn, and the answer that follows.

    Raises: BadRow where more than one message follows: only single answers are compared.
    """
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    while shared and (chosen[shared - 1]["role"] == "assistant" or max(len(chosen), len(rejected)) == shared):
        shared -= 1
    if not shared:
        raise BadRow("'chosen' and 'rejected' do not begin with the same prompt")
    return _merged(chosen[:shared]), _rest(chosen[shared:], "'chosen'"), _rest(rejected[shared:], "'rejected'")


def _merged(messages: list[Message]) -> list[Message]:
    """Join neighbours of one role: most chat templates demand that roles alternate."""
    merged: list[Message] = []
    for message in messages:
        if merged and merged[-1]["role"] == message["role"]:
            merged[-1] = {**message, "content": f"{merged[-1]['content']}\n\n{message['content']}"}
        else:
            merged.append(message)
    return merged


def _rest(messages: list[Message], what: str) -> str:
    if not messages or messages[0]["role"] != "assistant" or messages[-1]["role"] != "assistant":
        raise BadRow(f"{what} does not end with an answer of the assistant")
    if not messages[-1]["content"].strip():
        raise BadRow(f"{what} is an empty answer")
    if len(messages) > 1:
        raise BadRow(
            f"{what} goes on after the answer with which it parts from the other conversation, with a message of the "
            f"{messages[1]['role']}; only single answers are compared, so give pairs that part at their last message"
        )
    return _with_reasoning(messages[0])


def readable(prompt: Prompt) -> str:
    """Render a prompt for people and judges: plain text and a lone user message as they are, else with names."""
    if isinstance(prompt, str):
        return prompt
    prompt = with_tools(*carried_tools(prompt))
    if len(prompt) == 1 and prompt[0]["role"] == "user":
        return prompt[0]["content"]
    return "\n\n".join(f"{message['role'].capitalize()}: {_with_reasoning(message)}" for message in prompt)


def _with_reasoning(message: Message) -> str:
    reasoning = message.get("reasoning")
    return f"<think>\n{reasoning}\n</think>\n\n{message['content']}" if reasoning else message["content"]
