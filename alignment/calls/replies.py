"""Reads an endpoint's JSON field by field: each value is typed, finite and bounded, or the reply is refused.

Nothing that an endpoint sends is believed but what is checked here. What fails raises `ReplyFault`; it becomes a
status, never a label.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alignment.strict_json import Limits

# A half surrogate in a text is replaced, a log-probability that is NaN is found where it is read, and one beyond what
# a float can hold is no log-probability; so none of them makes the whole reply useless.
LIMITS = Limits(size=2**30, depth=64, digits=1000, finite=False, whole=False)
MOST_TOKENS = 10**9  # that an endpoint may count for one call
NAME_CHARACTERS = 200
ENDED = frozenset({"stop", "eos", "eos_token", "stop_sequence", "end_turn"})
CUT_OFF = frozenset({"length", "max_tokens", "model_length", "model_context_window_exceeded"})
FILTERED = frozenset({"content_filter", "refusal", "safety"})
SPEAKERS = frozenset({"assistant", "model"})
REFUSAL = re.compile(
    r"^\W*(i['’]?m sorry|sorry\b|i apologi[sz]e|i\s+(can['’]?t|cannot|won['’]?t|will not|(am|['’]m) (not able|unable))"
    r"|as an ai\b)",
    re.IGNORECASE,
)


class ReplyFault(ValueError):
    """What came is no reply."""


@dataclass(frozen=True, slots=True)
class ParsedReply:
    """The text of a reply, and why it ended."""

    text: str
    ended: str  # "ok", "truncated" or "refusal"
    finish: str | None  # as the endpoint calls it
    refusal: str = ""


def chat_completion(value: Mapping[str, Any]) -> tuple[ParsedReply, Any]:
    """Read a chat completion of OpenAI's form; what it says, and its log-probabilities as they are.

    Raises: ReplyFault.
    """
    choices = _typed(value, "choices", list)
    if value.get("error"):
        raise ReplyFault("it holds an error")
    if len(choices) != 1 or not isinstance(choices[0], dict):
        raise ReplyFault(f"it holds {len(choices)} choices where one was asked for")
    choice = choices[0]
    message = _typed(choice, "message", dict)
    _require_speaker(message)
    refusal = _optional(message, "refusal", str) or ""
    if "content" not in message and not refusal:
        raise ReplyFault("its message has no content")
    text = well_formed(_optional(message, "content", str) or "")
    finish = _optional(choice, "finish_reason", str)
    ended = "refusal" if refusal else _ended(finish)
    if not text and ended == "ok" and message.get("tool_calls"):
        raise ReplyFault("it calls tools")
    return ParsedReply(text, ended, finish, well_formed(refusal)), choice.get("logprobs")


def message(value: Mapping[str, Any]) -> ParsedReply:
    """Read a message of Anthropic's form.

    Raises: ReplyFault.
    """
    blocks = _typed(value, "content", list)
    _require_speaker(value)
    texts = []
    for block in blocks:
        # Of what a model may send beside text, its thinking say, nothing is its answer.
        if _typed(block, "type", str) == "text":
            texts.append(_typed(block, "text", str))
    finish = _optional(value, "stop_reason", str)
    return ParsedReply(well_formed("".join(texts)), _ended(finish), finish)


def details_of(value: Mapping[str, Any], reply: ParsedReply | None, names: Mapping[str, str]) -> dict[str, Any]:
    """Return what is kept beside a reply: the model's exact name, why it ended, and the tokens that were counted.

    Args:
        names: of the counts in `usage`, and how they are called here; others that begin with "cache_" are kept, too.
    """
    model, usage = value.get("model"), value.get("usage")
    counts: dict[str, int] = {}
    for key, count in usage.items() if isinstance(usage, dict) else ():
        if (key in names or key.startswith("cache_")) and type(count) is int and 0 <= count <= MOST_TOKENS:
            counts[names.get(key, key)] = count
    ended = {"finish_reason": reply.finish} if reply else {}
    return {"model": well_formed(model)[:NAME_CHARACTERS] if isinstance(model, str) else None, **ended, "usage": counts}


def _ended(finish: str | None) -> str:
    """Return what a finish reason means; none at all is one of a server that has one way to end.

    Raises: ReplyFault where it is not known to leave a whole reply.
    """
    reason = "stop" if finish is None else finish.lower()
    for status, reasons in (("ok", ENDED), ("truncated", CUT_OFF), ("refusal", FILTERED)):
        if reason in reasons:
            return status
    raise ReplyFault(f"it ended by {reason[:NAME_CHARACTERS]!r}, which is not known to leave a whole reply")


def _require_speaker(value: Mapping[str, Any]) -> None:
    role = _optional(value, "role", str)
    if role is not None and role not in SPEAKERS:
        raise ReplyFault(f"its role is {role[:NAME_CHARACTERS]!r}, not assistant")


def _typed(value: Any, key: str, kind: type) -> Any:
    found = value.get(key) if isinstance(value, dict) else None
    if not isinstance(found, kind):
        raise ReplyFault(f"its {key} is of the type {type(found).__name__}, not {kind.__name__}")
    return found


def _optional(value: Mapping[str, Any], key: str, kind: type) -> Any:
    found = value.get(key)
    return None if found is None else _typed(value, key, kind)


def is_refusal(reply: str) -> bool:
    """Whether a reply without a verdict declines to give one."""
    return REFUSAL.match(reply) is not None


def well_formed(text: str) -> str:
    """Replace lone surrogates, which JSON may spell and UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def count_of(tokens: Any) -> int | None:
    """Return a number of tokens; None where it is none, as endpoints may send anything."""
    return tokens if type(tokens) is int and 0 <= tokens <= MOST_TOKENS else None
