"""Rows of all layouts brought to one: `messages`, or `ranking` for answers that are compared."""

import json
from collections.abc import Callable
from typing import Any

from alignment.data.conversations import carried_tools
from alignment.data.fields import BadRow
from alignment.data.formats import ANSWERS, Format
from alignment.data.layouts import Only, Parsed, Row
from alignment.data.rankings import ranking_to_json
from alignment.data.readers import RawRow
from alignment.data.rows import Demonstration, Message, Ranking
from alignment.data.thumbs import PROBABILITY

Converter = Callable[[Parsed, RawRow, Format], Row]


def converter(layout: str) -> Converter:
    """Return the function that brings a row to a layout, with the columns that its own layout does not read."""
    return {"messages": _messages, "ranking": _ranking}[layout]


def _messages(parsed: Parsed, raw: RawRow, fmt: Format) -> Row:
    """Return a conversation, with the label of its answer.

    Raises: BadRow if the row is a text alone, or compares answers.
    """
    if isinstance(parsed, Ranking):
        raise BadRow("compares answers, which layout: messages does not hold; set layout: ranking")
    if isinstance(parsed, Demonstration) and not parsed.prompt:
        raise BadRow("is a text without a prompt, which layout: messages does not hold; leave layout out")
    if isinstance(parsed, Only):
        prompt = parsed.prompt if isinstance(parsed.prompt, list) else [{"role": "user", "content": parsed.prompt}]
        messages, tools = carried_tools(prompt)
        return _with_others({"messages": [_plain(message, True) for message in messages]}, tools, raw, fmt)
    trained = set(parsed.trained())
    turns = [_plain(message, place in trained) for place, message in enumerate(parsed.conversation())]
    row: Row = {"messages": turns}
    if parsed.desirable is not None:
        row[PROBABILITY] = parsed.desirable
    return _with_others(row, parsed.tools, raw, fmt)


def _plain(message: Message, trained: bool) -> dict[str, Any]:
    """Return a message as data sets write it."""
    found: dict[str, Any] = {key: value for key, value in message.items() if key not in ("tool_calls", "reasoning")}
    if "tool_calls" in message:
        found["tool_calls"] = json.loads(message["tool_calls"])
        found["content"] = ""  # the text of the calls is made of them again
    if "reasoning" in message:
        found["reasoning_content"] = message["reasoning"]
    if message["role"] == "assistant" and not trained:
        found["weight"] = 0
    return found


def _ranking(parsed: Parsed, raw: RawRow, fmt: Format) -> Row:
    """Return a ranking.

    Raises: BadRow if the row compares nothing.
    """
    if not isinstance(parsed, Ranking) or fmt.name == ANSWERS:
        raise BadRow("compares no answers, which layout: ranking needs; set layout: messages")
    return _with_others(ranking_to_json(parsed), None, raw, fmt)


def _with_others(row: Row, tools: str | None, raw: RawRow, fmt: Format) -> Row:
    if tools:
        row["tools"] = json.loads(tools)
    reads = fmt.reads_in(raw.value)
    return {**row, **{key: value for key, value in raw.value.items() if key not in reads and key not in row}}
