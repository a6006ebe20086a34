"""Turns of a conversation that are missing: an answer without text, a tool's result without a call."""

from alignment.data.answers import is_empty
from alignment.data.conversations import after_thought
from alignment.data.fields import BadRow
from alignment.data.layouts import Parsed
from alignment.data.rows import Demonstration


def refuse_missing_turns(parsed: Parsed) -> None:
    """Refuse an empty answer, which a model would learn or repeat, and a tool's result without a call before it."""
    messages = parsed.prompt if isinstance(parsed.prompt, list) else []
    called = False  # whether the assistant, who may call in text, speaks last before the tools' results
    for place, message in enumerate(messages):
        if message["role"] == "assistant" and is_empty(message["content"]):
            raise BadRow(
                f"message {place + 1} of the conversation is an empty message of the assistant{after_thought(message)}"
            )
        if message["role"] != "tool":
            called = message["role"] == "assistant"
        elif not called:
            raise BadRow(
                f"message {place + 1} of the conversation is the result of a tool, and no call of the assistant stands "
                "before it; put the call before it as tool_calls, or take the result out"
            )
    if isinstance(parsed, Demonstration) and parsed.prompt != "" and is_empty(parsed.completion):
        answer = {"role": "assistant", "content": parsed.completion}
        raise BadRow(f"the last answer that is trained is an empty message{after_thought(answer)}")
