"""Reads an endpoint's JSON field by field, and checks the type and bounds of each value.

A reply that fails a check raises `ReplyFault`, which becomes a status, never a label.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alignment.strict_json import Limits

# Lone surrogates in a text are replaced, and log-probabilities are checked where they are read, so none of these makes
# the whole reply invalid.
LIMITS = Limits(size=2**30, depth=64, digits=1000, finite=False, whole=False)
MOST_TOKENS = 10**9  # of one call, by an endpoint's count
NAME_CHARACTERS = 200
ENDED = frozenset({"stop", "eos", "eos_token", "stop_sequence", "end_turn"})
CUT_OFF = frozenset({"length", "max_tokens", "model_length", "model_context_window_exceeded"})
FILTERED = frozenset({"content_filter", "refusal", "safety"})
ROLES = frozenset({"assistant", "model"})
REFUSAL = re.compile(
    r"^\W*(i['’]?m sorry|sorry\b|i apologi[sz]e|i\s+(can['’]?t|cannot|won['’]?t|will not|(am|['’]m) (not able|unable))"
    r"|as an ai\b)",
    re.IGNORECASE,
)


class ReplyFault(ValueError):
    """The JSON is not a valid reply."""


@dataclass(frozen=True, slots=True)
class ParsedReply:
    """The text of a reply, and the reason of its end."""

    text: str
    ended: str  # "ok", "truncated" or "refusal"
    finish: str | None  # in the endpoint's words
    refusal: str = ""


def chat_completion(value: Mapping[str, Any]) -> tuple[ParsedReply, Any]:
    """Return the reply in a chat completion of OpenAI's form, and its log-probabilities, unchecked.

    Raises: ReplyFault.
    """
    choices = _typed(value, "choices", list)
    if value.get("error"):
        raise ReplyFault("it contains an error")
    if len(choices) != 1 or not isinstance(choices[0], dict):
        raise ReplyFault(f"it contains {len(choices)} choices, and one was requested")
    choice = choices[0]
    message = _typed(choice, "message", dict)
    _require_role(message)
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
    _require_role(value)
    texts = []
    for block in blocks:
        # Other blocks, such as thinking, are not part of the answer.
        if _typed(block, "type", str) == "text":
            texts.append(_typed(block, "text", str))
    finish = _optional(value, "stop_reason", str)
    return ParsedReply(well_formed("".join(texts)), _ended(finish), finish)


def details_of(value: Mapping[str, Any], reply: ParsedReply | None, names: Mapping[str, str]) -> dict[str, Any]:
    """Return the details of a reply: the model's exact name, the finish reason and the token counts.

    Args:
        names: of the counts in `usage`, and their names here; counts that begin with "cache_" are kept too.
    """
    model, usage = value.get("model"), value.get("usage")
    counts: dict[str, int] = {}
    for key, count in usage.items() if isinstance(usage, dict) else ():
        if (key in names or key.startswith("cache_")) and type(count) is int and 0 <= count <= MOST_TOKENS:
            counts[names.get(key, key)] = count
    ended = {"finish_reason": reply.finish} if reply else {}
    return {"model": well_formed(model)[:NAME_CHARACTERS] if isinstance(model, str) else None, **ended, "usage": counts}


def _ended(finish: str | None) -> str:
    """Return the status that a finish reason means; no reason means "ok".

    Raises: ReplyFault if the reason is unknown.
    """
    reason = "stop" if finish is None else finish.lower()
    for status, reasons in (("ok", ENDED), ("truncated", CUT_OFF), ("refusal", FILTERED)):
        if reason in reasons:
            return status
    raise ReplyFault(f"its finish reason {reason[:NAME_CHARACTERS]!r} is unknown, so it may be incomplete")


def _require_role(value: Mapping[str, Any]) -> None:
    role = _optional(value, "role", str)
    if role is not None and role not in ROLES:
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
    """Whether a reply declines to give a verdict."""
    return REFUSAL.match(reply) is not None


def well_formed(text: str) -> str:
    """Replace lone surrogates, which JSON can escape and UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode("utf-8")


def count_of(tokens: Any) -> int | None:
    """Return a valid number of tokens; None for any other value."""
    return tokens if type(tokens) is int and 0 <= tokens <= MOST_TOKENS else None
