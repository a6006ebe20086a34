"""Turns of a conversation that are missing or out of place: an answer without text, calls without their results."""

import json
import re
from collections.abc import Sequence
from typing import Any

from alignment.data.answers import is_empty
from alignment.data.conversations import after_thought
from alignment.data.fields import BadRow
from alignment.data.layouts import Only, Parsed
from alignment.data.rows import Demonstration, Message, Ranking
from alignment.data.sampled import is_sampled
from alignment.strict_json import shown

_ASSISTANT = re.compile(r"\n[ \t]*(#+[ \t]*)?(Assistant|AI|Bot|Model|GPT)[ \t]*:\s*\Z", re.IGNORECASE)
_USER = re.compile(r"^[ \t]*(#+[ \t]*)?(Human|User)[ \t]*:", re.IGNORECASE | re.MULTILINE)


def refuse_missing_turns(parsed: Parsed) -> None:
    """Refuse an empty answer, which a model would learn or repeat, and calls and results that do not fit together."""
    if isinstance(parsed.prompt, str):
        _refuse_transcript(parsed.prompt, parsed)
    messages = parsed.prompt if isinstance(parsed.prompt, list) else []
    for place, message in enumerate(messages):
        if message["role"] == "assistant" and is_empty(message["content"]):
            raise BadRow(
                f"message {place + 1} of the conversation is an empty message of the assistant{after_thought(message)}"
            )
    refuse_parted_calls(messages)
    if isinstance(parsed, Demonstration) and parsed.prompt != "" and is_empty(parsed.completion):
        answer = {"role": "assistant", "content": parsed.completion}
        raise BadRow(f"the last answer that is trained is an empty message{after_thought(answer)}")


def _refuse_transcript(prompt: str, parsed: Parsed) -> None:
    """Refuse answers in which a transcript goes on with the user's next turn: it would be trained as the answer.

    The prompt is a transcript if it ends with the assistant's header; its user's header is looked for in the answers.
    """
    if not _ASSISTANT.search(prompt[-40:]):
        return
    header = next((found[0] for found in _USER.finditer(prompt)), None)
    if header is None or isinstance(parsed, Only) or (isinstance(parsed, Ranking) and is_sampled(parsed.provenance)):
        return
    answers = parsed.responses if isinstance(parsed, Ranking) else [parsed.completion]
    if any(f"\n{header.strip()}" in answer for answer in answers):
        raise BadRow(
            f"an answer goes on with {shown(header.strip())}, a turn of the user, which would be trained; write "
            "messages, or cut the answer before it"
        )


def refuse_parted_calls(messages: Sequence[Message]) -> None:
    """Refuse results of tools without a call before them, and calls without their results behind them.

    Most chat templates write results without the ids of their calls, so results belong to calls by their order. Calls
    that the assistant writes in its text are not known as calls, and any result may follow them.

    Args:
        messages: of a prompt, which an answer follows.
    """
    callers: dict[int, list[Message]] = {}  # place of each message of the assistant → the results directly behind it
    caller: int | None = None
    for place, message in enumerate(messages):
        if message["role"] != "tool":
            caller = place if message["role"] == "assistant" else None
            callers |= {place: []} if caller is not None else {}
        elif caller is None:
            raise BadRow(
                f"message {place + 1} of the conversation is the result of a tool, and no call of the assistant stands "
                "before it; put the call before it as tool_calls, or take the result out"
            )
        else:
            callers[caller].append(message)
    for place, results in callers.items():
        _require_results(messages, place, results)


def _require_results(messages: Sequence[Message], caller: int, results: Sequence[Message]) -> None:
    """Refuse calls of message `caller` that lack a result, and results of other calls or in another order."""
    calls = json.loads(messages[caller].get("tool_calls") or "[]")
    if not calls:
        return
    what = f"message {caller + 1} of the conversation calls {shown(calls[0]['function']['name'])}"
    if not results:
        if caller + 1 < len(messages) and messages[caller + 1]["role"] != "assistant":
            return  # the call ends a turn, and the user speaks next
        raise BadRow(
            f"{what}, and the next message is of the assistant, not the result; put the result directly behind the "
            "call as a message of the role tool, put several calls into one message, or take the call out"
        )
    wanted, found = _ids(calls, results)
    if wanted == found:
        _require_names(what, calls, results if not wanted else ())
        return
    if unknown := next((one for one in found if one not in wanted), None):
        raise BadRow(
            f"{what}, and a result behind it has the tool_call_id {shown(unknown)}, which is not a call's id there"
        )
    if len(set(found)) < len(found):
        raise BadRow(f"{what}, and two results behind it have the tool_call_id {shown(_twice(found))}; keep one")
    if missing := next((one for one in wanted if one not in found), None):
        raise BadRow(
            f"{what}, and no result behind it has the tool_call_id {shown(missing)} of one of its calls; add the "
            "result, or take the call out"
        )
    raise BadRow(
        f"{what}, and the results behind it are in another order than the calls, {', '.join(found)}; most chat "
        "templates write results without ids, so put them in the order of the calls"
    )


def _require_names(what: str, calls: Sequence[dict[str, Any]], results: Sequence[Message]) -> None:
    """Refuse results without ids whose names are not those of the calls, in their order."""
    names = [result.get("name") for result in results]
    called = [call["function"]["name"] for call in calls]
    if any(names) and None not in names and names != called[: len(names)]:
        raise BadRow(
            f"{what}, and the results behind it are of {', '.join(map(shown, names))}, where the calls are of "
            f"{', '.join(map(shown, called))}; put the results in the order of the calls"
        )


def _ids(calls: Sequence[dict[str, Any]], results: Sequence[Message]) -> tuple[list[str], list[str]]:
    """Return what names the calls and the results: their ids where all have one; else nothing."""
    wanted = [str(call["id"]) for call in calls if call.get("id") is not None]
    found = [result["tool_call_id"] for result in results if "tool_call_id" in result]
    return (wanted, found) if len(wanted) == len(calls) and len(found) == len(results) else ([], [])


def _twice(found: Sequence[str]) -> str:
    return next(one for place, one in enumerate(found) if one in found[:place])
