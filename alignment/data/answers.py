"""Answers that are kept as text, as messages."""

import re

from alignment.data.calls import call_message, calls_of
from alignment.data.fields import BadRow
from alignment.data.rows import Message
from alignment.errors import JsonError
from alignment.strict_json import parse

_CALL = re.compile(r"<tool_call>\n(.*)\n</tool_call>")


def message_of_answer(text: str) -> Message:
    """Return an answer as a message; calls as `message_of` writes them into the content become `tool_calls` again."""
    words, *calls = _CALL.split(text)
    if not calls or any(part.strip() for part in calls[1::2]):
        return {"role": "assistant", "content": text}
    try:
        functions = [parse(call) for call in calls[::2]]
        if all(isinstance(function, dict) and "name" in function for function in functions):
            calls = [{"type": "function", "function": call} for call in functions]
            made = call_message(words.rstrip("\n"), calls_of({"tool_calls": calls}, "the answer"))
            if made["content"] == text:
                return made
    except (JsonError, BadRow):
        pass  # it is text
    return {"role": "assistant", "content": text}
