"""Common parts of exports of annotation tools: people's opinions of named texts, and the meaning of the names.

Exports do not mark which texts are answers and which is the prompt; the names show it. A row with ambiguous names is
rejected, because a wrong guess would give a wrong label.
"""

import itertools
import re
from dataclasses import dataclass, field
from typing import Any

from alignment.data.conversations import messages_of, with_system
from alignment.data.fields import BadRow, text_of
from alignment.data.keys import UnreadKey, unread
from alignment.data.rows import Message, Pair, Prompt, Ranking

Row = dict[str, Any]
PROMPTS = ("prompt", "instruction", "question", "query", "input", "conversation", "chat", "messages", "task")
CONTEXTS = ("context", "document", "passage")
SYSTEMS = ("system", "systemprompt", "systemmessage")
_END = re.compile(r"(\d+|(?<![a-z])[a-z])$")


@dataclass
class Opinions:
    """The opinions of the people of one record on the same answers."""

    prompt: Prompt
    answers: list[str]
    said: list[tuple[str, list[Pair] | None]] = field(default_factory=list)  # by person; None if they passed

    def rankings(self, provenance: Row) -> list[Ranking]:
        """Return one ranking per person."""
        ends = itertools.combinations(range(len(self.answers)), 2)
        passed = [Pair(first, second, None, "abstain") for first, second in ends]
        return [
            Ranking(
                self.prompt,
                self.answers,
                passed if pairs is None else pairs,
                {"source": "person", "annotator": person, "judge": f"person:{person}", **provenance},
            )
            for person, pairs in self.said
        ]


def prompt_among(fields: Row, answers: list[str]) -> Prompt:
    """Return the prompt among the fields that are not answers: by its name, or as the only remaining text.

    A context follows the prompt after a blank line; a system prompt becomes the system's message.
    """
    others = {name: value for name, value in fields.items() if name not in answers and is_text(value)}
    named = {plain(name): name for name in others}
    prompt = next((named[word] for word in PROMPTS if word in named), None)
    rest = [name for name in others if plain(name) not in (*CONTEXTS, *SYSTEMS)]
    if prompt is None and len(rest) == 1:
        prompt = rest[0]
    if prompt is None:
        raise BadRow(f"which of {', '.join(others) or 'no fields'} is the prompt? name it {' or '.join(PROMPTS[:3])}")
    around = (*SYSTEMS,) if isinstance(fields[prompt], list) else (*SYSTEMS, *CONTEXTS)
    _refuse_unread(fields, [prompt, *answers, *(named[word] for word in around if word in named)], answers)
    if isinstance(fields[prompt], list):
        messages = messages_of(fields, prompt)
        if messages[-1]["role"] == "assistant":
            raise BadRow(f"'{prompt}' ends with a message of the assistant, so there is nothing to answer")
        return with_system(messages, "\n\n".join(_texts(fields, named, SYSTEMS)))
    system: list[Message] = [{"role": "system", "content": text} for text in _texts(fields, named, SYSTEMS)]
    return [
        *system,
        {"role": "user", "content": "\n\n".join([text_of(fields, prompt), *_texts(fields, named, CONTEXTS)])},
    ]


def _texts(fields: Row, named: dict[str, str], words: tuple[str, ...]) -> list[str]:
    found = [named[word] for word in words if word in named]
    return [text_of(fields, name) for name in found if isinstance(fields[name], str) and fields[name].strip()]


def _refuse_unread(fields: Row, reads: list[str], answers: list[str]) -> None:
    """Reject texts that are neither the prompt nor an answer."""
    spare = [name for answer in answers for name in siblings(answer, fields)]
    keys = unread(fields, reads, spare)
    if keys:
        raise UnreadKey(
            f"{', '.join(keys)}: not read; the prompt is {reads[0]} and the answers are {', '.join(answers)}. Name "
            f"a context {' or '.join(CONTEXTS)} and a system prompt {SYSTEMS[0]}, or set ignore_columns: "
            f"[{', '.join(keys)}]"
        )


def is_prompt(name: str) -> bool:
    """Whether a field with this name is part of the prompt."""
    return plain(name) in (*PROMPTS, *CONTEXTS, *SYSTEMS)


def is_text(value: Any) -> bool:
    """Whether a field holds a text or a conversation."""
    return isinstance(value, str) or (
        isinstance(value, list) and bool(value) and all(isinstance(one, dict) and "content" in one for one in value)
    )


def plain(name: Any) -> str:
    """Return a name without case, blanks and dashes."""
    return re.sub(r"[^a-z0-9]", "", name.lower()) if isinstance(name, str) else ""


def field_of(name: Any, fields: Row) -> str | None:
    """Return the field with that name, ignoring case, blanks and dashes; None if there are none or two."""
    if isinstance(name, str) and name in fields:
        return name
    same = [key for key in fields if plain(key) and plain(key) == plain(name)]
    return same[0] if len(same) == 1 else None


def same_end(name: str, fields: Row) -> str | None:
    """Return the one field whose name ends with the same number or letter, as `txt-1` and `text1`."""
    end = _END.search(name.lower())
    same = [key for key in fields if end and (found := _END.search(key.lower())) and found[1] == end[1]]
    return same[0] if len(same) == 1 else None


def siblings(name: str, fields: Row) -> list[str]:
    """Return the fields whose names differ from this one only in the last number or letter."""
    if not _END.search(name.lower()):
        return [name]
    stem = plain(_END.sub("", name.lower()))
    return [key for key in fields if _END.search(key.lower()) and plain(_END.sub("", key.lower())) == stem]
