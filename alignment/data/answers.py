"""Conversion of answers between text and messages."""

import re

from alignment.data.calls import call_message, calls_of
from alignment.data.fields import BadRow
from alignment.data.rows import Message
from alignment.errors import JsonError
from alignment.strict_json import parse

_CALL = re.compile(r"<tool_call>\n(.*)\n</tool_call>")
_THOUGHT = re.compile(r"<think>\n(.+?)\n</think>\n\n(.+)", re.DOTALL)
# Tags around a model's reasoning.
THOUGHTS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)
TAGGED = "tagged"  # a key of messages whose reasoning was in <think> tags in a text


def message_of_answer(text: str, *, from_field: bool = False) -> Message:
    """Return an answer as a message.

    Reasoning and calls inside the text become `reasoning` and `tool_calls`, which a chat template writes in its own
    form.

    Args:
        from_field: whether the data has the reasoning in a separate field (`text_of_answer`), not in the text.
    """
    thought = _THOUGHT.fullmatch(text)
    if thought is None or not thought[1].strip() or not thought[2].strip() or re.search("</?think>", thought[1]):
        return _with_calls(text)
    message = {**_with_calls(thought[2].lstrip("\n")), "reasoning": thought[1]}
    return message if from_field else {**message, TAGGED: "yes"}


def is_empty(text: str) -> bool:
    """Whether an answer has no text, or only reasoning in tags."""
    text = text.strip()
    return not text or any(text.startswith(begin) and text.find(end) == len(text) - len(end) for begin, end in THOUGHTS)


def behind_thought(text: str) -> str:
    """Return the text after the reasoning at the beginning of an answer."""
    tags = next((tags for tags in THOUGHTS if text.lstrip().startswith(tags[0]) and tags[1] in text), None)
    return text.partition(tags[1])[2] if tags else text


def text_of_answer(message: Message) -> str:
    """Return the text of an answer, its reasoning in <think> tags."""
    reasoning = message.get("reasoning")
    return in_text(reasoning, message["content"]) if reasoning else message["content"]


def require_readable(text: str, what: str) -> None:
    """Reject reasoning and content that `message_of_answer` could not separate again."""
    if "reasoning" not in message_of_answer(text):
        raise BadRow(f"{what} has reasoning that holds <think> or </think>; take these tags out")


def in_text(reasoning: str, content: str) -> str:
    """Return an answer's reasoning and content as one text."""
    return f"<think>\n{reasoning}\n</think>\n\n{content}"


def _with_calls(text: str) -> Message:
    words, *calls = _CALL.split(text)
    if not calls or any(part.strip() for part in calls[1::2]):
        return {"role": "assistant", "content": text}
    try:
        functions = [parse(call) for call in calls[::2]]
        if all(isinstance(function, dict) and "name" in function for function in functions):
            calls = [{"type": "function", "function": call} for call in functions]
            made = call_message(words.removesuffix("\n"), calls_of({"tool_calls": calls}, "the answer"))
            if made["content"] == text:
                return made
    except (JsonError, BadRow):
        pass  # it is text
    return {"role": "assistant", "content": text}
