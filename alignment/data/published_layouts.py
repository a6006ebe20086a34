"""Readers of layouts in which a company or a well-known data set publishes compared answers."""

from alignment.data.calls import tools_of
from alignment.data.conversations import carrying_tools, common_prompt, messages_of, split_answer
from alignment.data.fields import BadRow, kind_of, text_of
from alignment.data.keys import plain_name, refuse_unread_of
from alignment.data.layouts import Parsed, Row
from alignment.data.preference_layouts import choice
from alignment.data.rankings import number_of, pairs_from_scores, prompt_of
from alignment.data.rows import Message, Ranking
from alignment.strict_json import shown

_OUTPUTS = ("preferred_output", "non_preferred_output")
_CONVERSATIONS = ("conversation_a", "conversation_b")
_WINNERS = {
    **dict.fromkeys(("model_a", "a", "conversation_a"), 1.0),
    **dict.fromkeys(("model_b", "b", "conversation_b"), 0.0),
    **dict.fromkeys(("tie", "tie_bothbad", "bothbad", "both_bad", "both_good"), 0.5),
}


def openai_preference(row: Row) -> list[Parsed]:
    """A choice of two, as OpenAI's preference fine-tuning reads it."""
    given = row.get("input")
    if not isinstance(given, dict):
        raise BadRow(f"'input' is {kind_of(given)}, not an object with messages")
    refuse_unread_of(given, "'input'", ("messages", "tools"))
    messages = carrying_tools(messages_of(given, "messages"), tools_of(given))
    if messages[-1]["role"] == "assistant":
        raise BadRow("'input.messages' ends with a message of the assistant, so there is nothing to answer")
    better, worse = (_output(row, key, messages) for key in _OUTPUTS)
    return choice({}, messages, better, worse, _OUTPUTS)


def _output(row: Row, key: str, messages: list[Message]) -> Message:
    found = messages_of(row, key)
    if len(found) > 1:
        raise BadRow(f"'{key}' has {len(found)} messages; only single answers are compared")
    return split_answer([*messages, *found], f"'{key}'")[1]


def arena(row: Row) -> list[Parsed]:
    """A choice of two conversations by their winner, as in Chatbot Arena."""
    winner = row.get("winner")
    probability = _WINNERS.get(plain_name(winner).strip("_")) if isinstance(winner, str) else None
    if probability is None:
        raise BadRow(f"'winner' is {shown(winner)}; known are model_a, model_b, tie and both_bad")
    first, second = (messages_of(row, key) for key in _CONVERSATIONS)
    prompt, one, other = common_prompt(first, second, _CONVERSATIONS)
    return choice({"probability": probability}, prompt, one, other, _CONVERSATIONS)


def graded(row: Row) -> list[Parsed]:
    """A choice of two by a number, as in HelpSteer2: below 0 for the first response, above 0 for the second."""
    strength = number_of(row.get("preference_strength"), "'preference_strength'")
    answers = [text_of(row, "response_1"), text_of(row, "response_2")]
    if answers[0] == answers[1] and strength:
        raise BadRow("'response_1' and 'response_2' are the same answer, so neither is preferred")
    return [Ranking(prompt_of(row), answers, pairs_from_scores([0.0, strength]))]
