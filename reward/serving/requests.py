"""Reads and checks the body of a request for scores."""

import json
from dataclasses import dataclass
from typing import Any

from alignment.data.fields import is_whole
from alignment.errors import DataError
from alignment.serving.batching import ScoreRequest, characters

CARRIED = ("tool_calls", "tools")  # keys of a message with JSON text


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one request."""

    body_bytes: int = 2**23
    answers: int = 4_096
    characters: int = 2**17  # of one answer with its prompt; longer texts would take much time and memory to tokenise


LIMITS = Limits()


def rows_of(body: Any, limits: Limits) -> ScoreRequest:
    """Read a request: `prompts`, each text or messages, `answers`, and perhaps `stopped`, lists of one length.

    Raises: DataError naming what is wrong where.
    """
    if not isinstance(body, dict):
        raise DataError(f'the body is {_kind(body)}; it must be {{"prompts": [...], "answers": [...]}}.')
    unknown = sorted(body.keys() - {"prompts", "answers", "stopped"})
    if unknown:
        raise DataError(f"the body has {', '.join(map(_quoted, unknown[:3]))}; known are prompts, answers and stopped.")
    for key in ("prompts", "answers"):
        if not isinstance(body.get(key), list):
            found = f"is {_kind(body[key])}" if key in body else "is missing"
            raise DataError(f"{key} {found}; it must be a list with one entry per answer.")
    prompts, answers = body["prompts"], body["answers"]
    stopped = body["stopped"] if body.get("stopped") is not None else [True] * len(answers)
    for key, values in (("prompts", prompts), ("stopped", stopped)):
        if not isinstance(values, list) or len(values) != len(answers):
            found = f"{len(values)} of {key}" if isinstance(values, list) else f"{key} is {_kind(values)}"
            raise DataError(f"{found} for {len(answers)} answers; give one for each.")
    if len(answers) > limits.answers:
        raise DataError(f"{len(answers)} answers are more than the {limits.answers} of a request; send fewer at once.")
    for place, row in enumerate(zip(prompts, answers, stopped, strict=True)):
        _require_row(*row, place, limits.characters)
    return ScoreRequest(prompts, answers, stopped)


def _require_row(prompt: Any, answer: Any, ended: Any, place: int, most: int) -> None:
    if not isinstance(answer, str):
        raise DataError(f"answers[{place}] is {_kind(answer)}, not text.")
    if not isinstance(ended, bool):
        raise DataError(f"stopped[{place}] is {_kind(ended)}, not true or false.")
    if not isinstance(prompt, str):
        _require_messages(prompt, f"prompts[{place}]")
    for key, value in (("prompts", prompt), ("answers", answer)):
        if not is_whole(value):
            raise DataError(f"{key}[{place}] holds half of a surrogate pair, which is no character.")
    size = characters(prompt) + len(answer)
    if size > most:
        raise DataError(f"answers[{place}] and its prompt have {size} characters, more than the {most} that are read.")


def _require_messages(value: Any, where: str) -> None:
    if not isinstance(value, list) or not value:
        raise DataError(f"{where} is {_kind(value)}; it must be text or a list of messages.")
    for place, message in enumerate(value):
        parts = [message.get(key) for key in ("role", "content")] if isinstance(message, dict) else [None]
        if not all(isinstance(part, str) for part in parts):
            raise DataError(f"{where}[{place}] is not a message with the texts role and content.")
        for key, part in message.items():
            if not isinstance(part, str):
                raise DataError(f"{where}[{place}]: {_quoted(key)} is {_kind(part)}, not text.")
        for key in CARRIED:
            if key in message:
                _require_json(message[key], f"{where}[{place}]: {key!r}")


def _require_json(text: str, where: str) -> None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise DataError(f"{where} is not JSON.") from None
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise DataError(f"{where} is not a JSON list of objects.")


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list" if value else "an empty list", str: "text", type(None): "null"}
    return kinds.get(type(value), "true or false" if isinstance(value, bool) else "a number")
