"""Chat messages as data sets write them, brought to `{"role", "content"}`."""

import json
import re
from typing import Any

from alignment.data.answers import is_empty, text_of_answer
from alignment.data.calls import call_message, calls_in, calls_of, tools_of
from alignment.data.content import content_of
from alignment.data.fields import BadRow, keys_of, kind_of, text_in
from alignment.data.keys import TRAINING_MARKS, UnreadKey, refuse_unread_of_message
from alignment.data.rows import Message, Prompt
from alignment.strict_json import shown

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
    "chatbot": "assistant",
    "ai": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "tool": "tool",
    "ipython": "tool",
    "observation": "tool",
    "function": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "tool_result": "tool",
    "function_call": "function_call",
    "tool_call": "function_call",
}
REASONING = ("reasoning_content", "reasoning", "thinking")  # fields of a message, the first that has text is read
_PAIR = {"system", "input", "output"}  # keys of a turn of Capybara and XTuner
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
    turns = _turns(turns, key) if key in ("messages", "conversations") else turns
    messages = [message_of(turn, f"'{key}[{index}]'") for index, turn in enumerate(turns)]
    for index, message in enumerate(messages):
        if "tools" in message and (index or message["role"] not in ("system", "user")):
            raise UnreadKey(
                f"'{key}[{index}]' has 'tools', which are read of a row, or of a system or user message that is the "
                "first; give them as the row's key tools"
            )
    return messages


def _turns(turns: list[Any], key: str) -> list[Any]:
    """Return messages of texts that alternate, the user's first, as UltraChat has them, or of Capybara's pairs."""
    if all(isinstance(turn, str) for turn in turns):
        for index, turn in enumerate(turns):
            text_in(turn, f"'{key}[{index}]'")
        return [{"role": ("user", "assistant")[index % 2], "content": turn} for index, turn in enumerate(turns)]
    if all(isinstance(turn, dict) and {"input", "output"} <= turn.keys() <= _PAIR for turn in turns):
        if any("system" in turn for turn in turns[1:]):
            raise UnreadKey(f"'{key}' has 'system' behind its first turn; give one system prompt, in the first turn")
        keys = (("system", "system"), ("user", "input"), ("assistant", "output"))
        return [{"role": role, "content": turn[name]} for turn in turns for role, name in keys if name in turn]
    return turns


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
        return {"role": role, "content": content_of(turn[body], f"{what} '{body}'")}
    reads: tuple[str, ...] = (speaker, body, "name", "tool_calls", "tool_call_id", "tools")
    extras: Message = {}
    if role in ("assistant", "function_call"):
        reads = (*reads, "function_call", *REASONING, *TRAINING_MARKS)
        extras = _extras(turn, what)
    if not turn.keys() <= set(reads):
        refuse_unread_of_message(turn, what, reads)
    message = {**_spoken(turn, role, body, what), **extras}
    for extra in ("name", "tool_call_id"):
        if turn.get(extra) is not None:
            message[extra] = text_in(turn[extra], f"{what} '{extra}'")
    tools = tools_of(turn)  # that a prompt of our own labels carries
    return {**message, "tools": tools} if tools else message


def _spoken(turn: dict[str, Any], role: str, body: str, what: str) -> Message:
    """Return the role and the content of a message, and its calls."""
    calls = calls_of(turn, what)
    if role == "function_call" and not calls:
        return call_message(*calls_in(turn.get(body), f"{what} '{body}'"))
    if calls and role not in ("assistant", "function_call"):
        raise BadRow(f"{what} has 'tool_calls' and the role {role}; only the assistant calls tools")
    if calls:
        return call_message("" if turn.get(body) is None else content_of(turn[body], f"{what} '{body}'"), calls)
    if body not in turn:
        raise BadRow(f"{what} has no '{body}'")
    return {"role": role, "content": content_of(turn[body], f"{what} '{body}'")}


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


def with_system(messages: list[Message], system: str) -> list[Message]:
    """Put a row's `system` before its messages; a system message that differs from it is a `BadRow`."""
    if not system.strip():
        return messages
    if messages and messages[0]["role"] == "system":
        if messages[0]["content"].strip() != system.strip():
            raise BadRow("'system' differs from the system message that the conversation begins with; keep one")
        return messages
    rest, tools = carried_tools(messages)
    return carrying_tools([{"role": "system", "content": system}, *rest], tools)


def carrying_tools(messages: list[Message], tools: str | None) -> list[Message]:
    """Keep the tools on the first message, under `tools`, where a chat prompt travels alone."""
    if not tools:
        return messages
    given = messages[0].get("tools")
    if given is not None and json.loads(given) != json.loads(tools):
        raise BadRow("the row and its first message have different 'tools'; keep one")
    return [{**messages[0], "tools": tools}, *messages[1:]]


def carried_tools(messages: list[Message]) -> tuple[list[Message], str | None]:
    """Undo `carrying_tools`."""
    if not messages or "tools" not in messages[0]:
        return messages, None
    first = {key: value for key, value in messages[0].items() if key != "tools"}
    return [first, *messages[1:]], messages[0]["tools"]


def with_tools(messages: list[Message], tools: str | None) -> list[Message]:
    """Describe the tools in the system message, for chat templates without tools."""
    if not tools:
        return messages
    note = f"You may call these tools, as <tool_call>\n{{json}}\n</tool_call>:\n{tools}"
    if messages and messages[0]["role"] == "system":
        return [{**messages[0], "content": f"{messages[0]['content']}\n\n{note}".strip()}, *messages[1:]]
    return [{"role": "system", "content": note}, *messages]


def split_answer(messages: list[Message], what: str) -> tuple[list[Message], Message]:
    """Split a conversation into the prompt and its last message, which must be the assistant's and not blank."""
    last = messages[-1]
    if last["role"] != "assistant":
        raise BadRow(f"{what} ends with a message of the {last['role']}, so there is no answer")
    if is_empty(last["content"]):
        raise BadRow(f"{what} ends with an empty answer{after_thought(last)}")
    if len(messages) < 2:
        raise BadRow(f"{what} holds an answer without a prompt")
    return messages[:-1], last


def after_thought(message: Message) -> str:
    """Return a note on an empty answer that has reasoning."""
    has_reasoning = message["content"].strip() or message.get("reasoning")
    return " after its reasoning; write the answer behind it, or take the row out" if has_reasoning else ""


def parse_hh(text: str, what: str) -> list[Message]:
    r"""Read Anthropic HH's transcript: turns that begin with "\n\nHuman:" or "\n\nAssistant:", at the start without."""
    parts = _HH_TURN.split("\n\n" + text.lstrip())
    if len(parts) < 3 or parts[0].strip():
        raise BadRow(f"{what} does not begin with '\\n\\nHuman:'")
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = zip(parts[1::2], parts[2::2], strict=True)
    return _merged([{"role": roles[role], "content": body.strip()} for role, body in turns])


def common_prompt(
    chosen: list[Message], rejected: list[Message], names: tuple[str, str] = ("chosen", "rejected")
) -> tuple[list[Message], Message, Message]:
    """Split two conversations into what they share, up to the last shared user turn, and the answer that follows.

    Args:
        names: the keys that hold the conversations, for messages.
    Raises: BadRow if more than one message follows: only single answers are compared.
    """
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    while shared and (chosen[shared - 1]["role"] == "assistant" or max(len(chosen), len(rejected)) == shared):
        shared -= 1
    if not shared:
        raise BadRow(f"'{names[0]}' and '{names[1]}' do not begin with the same prompt")
    return chosen[:shared], _rest(chosen[shared:], f"'{names[0]}'"), _rest(rejected[shared:], f"'{names[1]}'")


def _merged(turns: list[Message]) -> list[Message]:
    """Join neighbouring turns of one speaker of a transcript."""
    merged: list[Message] = []
    for turn in turns:
        if merged and merged[-1]["role"] == turn["role"]:
            merged[-1] = {**turn, "content": f"{merged[-1]['content']}\n\n{turn['content']}"}
        else:
            merged.append(turn)
    return merged


def _rest(messages: list[Message], what: str) -> Message:
    if not messages or messages[0]["role"] != "assistant" or messages[-1]["role"] != "assistant":
        raise BadRow(f"{what} does not end with an answer of the assistant")
    if is_empty(messages[-1]["content"]):
        raise BadRow(f"{what} is an empty answer{after_thought(messages[-1])}")
    if len(messages) > 1:
        raise BadRow(
            f"{what} goes on after the answer with which it parts from the other conversation, with a message of the "
            f"{messages[1]['role']}; only single answers are compared, so give pairs that part at their last message"
        )
    return messages[0]


def readable(prompt: Prompt) -> str:
    """Render a prompt for people and judges: plain text and a lone user message as they are, else with names."""
    if isinstance(prompt, str):
        return prompt
    prompt = with_tools(*carried_tools(prompt))
    if len(prompt) == 1 and prompt[0]["role"] == "user":
        return prompt[0]["content"]
    return "\n\n".join(f"{message['role'].capitalize()}: {text_of_answer(message)}" for message in prompt)
