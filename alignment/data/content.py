"""The content of a message: text, or parts of text as OpenAI and Anthropic write them."""

from typing import Any

from alignment.data.fields import BadRow, text_in
from alignment.data.keys import refuse_unread_of
from alignment.strict_json import shown

_TEXTS = ("text", "input_text", "output_text")  # kinds of parts of a content: OpenAI's, also of its Responses API
_CALLED = "write the call as tool_calls of the message: [{id, function: {name, arguments}}]"
_RESULT = "write the result as a message of the role tool, directly behind the call, with tool_call_id and content"
_REASONED = "give the reasoning as reasoning_content of the message"
_INSTEAD = {
    **dict.fromkeys(("tool_use", "tool_call", "tool-call", "function_call"), _CALLED),
    **dict.fromkeys(("tool_result", "tool-result", "function_call_output"), _RESULT),
    **dict.fromkeys(("thinking", "reasoning", "redacted_thinking"), _REASONED),
    "refusal": 'write the refusal as {"type": "text", "text": …}',
}


def content_of(value: Any, what: str) -> str:
    """Return the content of a message: a text, or a list of parts that are text."""
    if isinstance(value, list):  # OpenAI's content parts
        for part in value:
            if not isinstance(part, dict) or part.get("type") not in _TEXTS:
                raise BadRow(f"{what} has a part that is not text{_remedy_of(part)}")
            refuse_unread_of(
                part, f"a part of {what}", ("type", "text"), ("cache_control", "annotations", "logprobs"), numbers=True
            )
        return "".join(text_in(part.get("text"), what, empty=True) for part in value)
    if isinstance(value, dict):
        raise BadRow(f"{what} is an object, not text; write it as JSON text")
    return text_in(value, what, empty=True)


def _remedy_of(part: Any) -> str:
    """Return the kind of a part of a content that is not read, and what to write instead."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind is None:
        return '; write each part as {"type": "text", "text": …}, or the content as one text'
    return f" but {shown(kind)}; {_INSTEAD.get(str(kind), 'only text is supported')}"
