"""Which layout a whole file has, and how its first row was understood."""

import contextlib
from typing import Any

from alignment.data.conversations import carried_tools
from alignment.data.fields import is_message, is_messages
from alignment.data.formats import FORMATS, Format
from alignment.data.layouts import Only, Parsed
from alignment.data.readers import RawRow, RawSource
from alignment.data.rows import Demonstration, Prompt, Ranking
from alignment.errors import DataError, JsonError, printable
from alignment.strict_json import parse, shown

_ANSWERS = {"prompt_completion": ("completion",), "preference": ("chosen", "rejected")}  # keys of texts, by layout
_SENTENCE = 20  # characters; an answer to a shorter prompt may begin with the same word
_OF_MESSAGES = {
    "messages", "conversations", "prompt", "completion", "chosen", "rejected", "conversation_a", "conversation_b",
    "preferred_output", "non_preferred_output",
}  # fmt: skip


def decoded(row: Any) -> Any:
    """Return a row with lists of messages where a column holds them as JSON text, or a message alone.

    Other text stays as it is.
    """
    if not isinstance(row, dict):
        return row
    found: dict[str, Any] = {key: _listed(row[key]) for key in _OF_MESSAGES & row.keys() if is_message(row[key])}
    texts = {key: row[key] for key in _OF_MESSAGES & row.keys() if isinstance(row[key], str) and is_messages(row[key])}
    for key, text in texts.items():
        found[key] = text
        with contextlib.suppress(JsonError):  # as Python prints a list: the layout refuses it
            value = parse(text)
            single = isinstance(value, dict) and ("role" in value or "from" in value)
            found[key] = [value] if single else value if isinstance(value, list) else text
    return {**row, **found} if found else row


def _listed(message: dict[str, Any]) -> list[Any]:
    """Return a message alone as a list, or the messages of lists by key, as `datasets` stores a sequence of objects."""
    lists = [*message.values()]
    if not all(isinstance(one, list) and len(one) == len(lists[0]) for one in lists):
        return [message]
    turns = zip(*lists, strict=True)
    return [{key: part for key, part in zip(message, turn, strict=True) if part is not None} for turn in turns]


def detect(source: RawSource) -> Format | None:
    """Return the layout of a file, by all its rows; None if no row has one.

    Each row fits one layout: the first in `FORMATS`, for these exclude those behind them. A file may mix a layout with
    another one whose keys it reads too, as `preference` reads those of `prompt`: such rows lack something, and are bad.

    Raises: DataError if its rows fit two layouts of which neither reads the other's keys.
    """
    found: dict[str, RawRow] = {}
    known: dict[tuple[tuple[str, type], ...], list[Format]] = {}
    for raw in source.rows:
        if raw.fault is not None or not isinstance(raw.value, dict):
            continue
        row = {key: value for key, value in raw.value.items() if value is not None}
        kind = tuple((key, type(value)) for key, value in row.items())
        candidates = known.get(kind)
        if candidates is None:
            candidates = known[kind] = [one for one in FORMATS if one.by_value or one.matches(row)]
        layout = next((one for one in candidates if not one.by_value or one.matches(row)), None)
        if layout is not None:
            found.setdefault(layout.name, raw)
    layouts = [layout for layout in FORMATS if layout.name in found]
    widest = [one for one in layouts if all(set(other.reads) <= set(one.reads) for other in layouts)]
    if layouts and not widest:
        places = " and ".join(f"{one.name} ({printable(found[one.name].where)})" for one in layouts)
        raise DataError(
            f"{source.name}: its rows fit the layouts {places}. Name the one to read with format, and the rows of the "
            "other are bad rows; or give each layout a file of its own."
        )
    return widest[0] if widest else None


def require_answers_alone(source: RawSource, layout: Format | None) -> None:
    """Reject a file in which most answers begin with their prompts, because each prompt would occur twice.

    Raises: DataError naming the first of these rows.
    """
    keys = _ANSWERS.get(layout.name if layout is not None else "")
    if keys is None:
        return
    rows = [raw for raw in source.rows if isinstance(raw.value, dict) and isinstance(raw.value.get("prompt"), str)]
    repeated = [raw for raw in rows if all(_begins_with(raw.value.get(key), raw.value["prompt"]) for key in keys)]
    if len(repeated) * 2 > len(rows):
        raise DataError(
            f"{printable(repeated[0].where)}: {' and '.join(keys)} begin with the prompt, in {len(repeated)} of "
            f"{len(rows)} rows, so it would occur twice; remove it from the answers."
        )


def require_one_kind(kinds: dict[bool, str]) -> None:
    """Refuse a file of which some prompts are text and others messages: a chat template would frame these alone.

    Args:
        kinds: whether prompts are text → the first such row.
    Raises: DataError naming both rows.
    """
    if len(kinds) == 2:
        raise DataError(
            f"{printable(kinds[True])} has a prompt of text, and {printable(kinds[False])} one of messages (a column "
            "of system or tools makes messages of a text too), so the chat template would write some prompts and not "
            "others. Give all as messages, a text as one message of the user, or each kind a file of its own."
        )


def _begins_with(answer: Any, prompt: str) -> bool:
    """Whether a text goes on from a prompt: behind its last word or mark, or where it has a sentence's length."""
    if not isinstance(answer, str) or not prompt.strip() or not answer.startswith(prompt):
        return False
    return len(prompt) >= _SENTENCE or answer[len(prompt) :][:1].isspace() or not prompt[-1].isalnum()


def told(parsed: Parsed) -> str:
    """Return in one line how a row was understood."""
    if isinstance(parsed, Only):
        return f"prompt {_prompt(parsed.prompt)}, no answer"
    if isinstance(parsed, Demonstration):
        start = f"prompt {_prompt(parsed.prompt, parsed.tools)}, answer" if parsed.prompt else "text"
        return f"{start} {shown(parsed.completion)}{_label(parsed.desirable)}"
    return f"prompt {_prompt(parsed.prompt)}, {_order(parsed)}"


def _label(desirable: float | None) -> str:
    if desirable is None:
        return ""
    return {1.0: ", good", 0.0: ", bad"}.get(desirable, f", good with probability {desirable:g}")


def _order(ranking: Ranking) -> str:
    answers = ranking.responses
    if len(ranking.pairs) == 1 and ranking.pairs[0].probability is not None:
        pair = ranking.pairs[0]
        first, second = (shown(answers[end]) for end in (pair.first, pair.second))
        if pair.probability == 0.0:
            first, second = second, first
        return f"{first} beats {second}" + (
            "" if pair.probability in (0.0, 1.0) else f", probability {pair.probability:g}"
        )
    return f"{len(answers)} answers in {len(ranking.pairs)} comparisons, the first {shown(answers[0])}"


def _prompt(prompt: Prompt, tools: str | None = None) -> str:
    if isinstance(prompt, str):
        return f"text {shown(prompt)}"
    messages, carried = carried_tools(prompt)
    roles = ", ".join(message["role"] for message in messages[:5]) + (", …" if len(messages) > 5 else "")
    with_tools = " with tools" if tools or carried else ""
    several = "s" if len(messages) > 1 else ""
    return f"of {len(messages)} message{several} ({roles}){with_tools} ending {shown(messages[-1]['content'])}"
