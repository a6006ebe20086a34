"""The texts of a row as its layout has it: where each one stands, and its role."""

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from alignment.data.conversations import REASONING, ROLES
from alignment.data.fields import BadRow
from alignment.data.formats import Format
from alignment.data.layouts import Row
from alignment.data.rows import Demonstration, Prompt

Role = Literal["system", "prompt", "answer", "rejected", "reasoning"]
Path = tuple[str | int, ...]
_CONVERSATION = "conversation"  # of messages, of which the assistant's are answers
TEXTS: dict[str, str] = {  # key of a layout → role of its text, or of the last message where it holds messages
    **dict.fromkeys(("system",), "system"),
    **dict.fromkeys(("prompt", "instruction", "input", "history"), "prompt"),
    **dict.fromkeys(("output", "completion", "text", "full_text", "chosen", "preferred_output"), "answer"),
    **dict.fromkeys(("responses", "output_1", "output_2", "response_0", "response_1", "response_2"), "answer"),
    **dict.fromkeys(("rejected", "non_preferred_output"), "rejected"),
    **dict.fromkeys(("messages", "conversations", "conversation_a", "conversation_b", "instances"), _CONVERSATION),
}
_BY_CONTENT = ("argilla", "label_studio")  # layouts whose keys the user of another program chose
_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


@dataclass(frozen=True, slots=True)
class Text:
    """One text of a row."""

    role: Role
    text: str
    path: Path  # of the string in the row that holds it
    span: tuple[int, int] | None = None  # in that string; None: the whole of it
    repeats: bool = False  # the context of an answer, which stands in the row before with another answer


def texts_of(row: Row, layout: Format | None) -> list[Text]:
    """Return the texts of a row in reading order.

    The assistant's messages in a prompt are prompt; in a conversation they are answers. Definitions of tools, and the
    arguments of calls, are not texts.

    Args:
        layout: as the loaders read the row; None: every text of a row without a layout is a prompt.
    """
    if layout is None:
        return [Text("prompt", value, (key,)) for key, value in row.items() if isinstance(value, str)]
    if layout.name in _BY_CONTENT:
        return list(_by_content(row, layout))
    reads = layout.reads_in(row)
    keys = [key for key in row if key in reads and key in TEXTS]
    found = [text for key in sorted(keys, key=_order) for text in _walk(row[key], TEXTS[key], (key,), layout)]
    first = next((text.path[0] for text in found if text.path[0] in ("chosen", "conversation_a")), None)
    if first is None:
        return found
    return [_repeated(text) if text.path[0] in ("rejected", "conversation_b") else text for text in found]


def with_texts(row: Row, texts: Sequence[Text], new: Sequence[str]) -> Row:
    """Return a copy of a row with other texts in the places of `texts`."""
    changed = copy.deepcopy(row)
    for text, words in sorted(zip(texts, new, strict=True), key=lambda pair: pair[0].span or (0, 0), reverse=True):
        if words == text.text:
            continue
        parent: Any = changed
        for step in text.path[:-1]:
            parent = parent[step]
        last = text.path[-1]
        whole, (start, end) = parent[last], text.span or (0, len(parent[last]))
        parent[last] = whole[:start] + words + whole[end:]
    return changed


def _order(key: str) -> tuple[int, str]:
    roles = ("system", "prompt", _CONVERSATION, "answer", "rejected")
    within = ("history", "instruction", "input", "prompt", "conversation_a", "conversation_b")
    return roles.index(TEXTS[key]), f"{within.index(key) if key in within else 9}{key}"


def _repeated(text: Text) -> Text:
    return text if text.role in ("answer", "rejected") else Text(text.role, text.text, text.path, text.span, True)


def _walk(value: Any, role: str, path: Path, layout: Format) -> Iterator[Text]:
    if isinstance(value, str):
        if layout.name == "hh":
            yield from _transcript(value, role, path)
        else:
            yield Text(_single(role), value, path)
    elif isinstance(value, dict):
        yield from _object(value, role, path, layout)
    elif isinstance(value, list):
        last = max((place for place, one in enumerate(value) if _speaker(one) == "assistant"), default=None)
        for place, one in enumerate(value):
            here = (*path, place)
            speaker = _speaker(one)
            if speaker is not None:
                yield from _message(one, _role_of(speaker, role, place == last), here)
            elif isinstance(one, str) and role == _CONVERSATION:
                yield Text(("prompt", "answer")[place % 2], one, here)
            else:
                yield from _walk(one, role, here, layout)


def _single(role: str) -> Role:
    return "prompt" if role == _CONVERSATION else role  # type: ignore[return-value]


def _object(value: dict[str, Any], role: str, path: Path, layout: Format) -> Iterator[Text]:
    if layout.name == "oasst":
        yield from _tree(value, path)
        return
    speaker = _speaker(value)
    if speaker is not None:
        yield from _message(value, _role_of(speaker, role, True), path)
        return
    for key in sorted((key for key in value if key in TEXTS), key=_order):  # a pair of a conversation, an instance
        yield from _walk(value[key], TEXTS[key] if role == _CONVERSATION else role, (*path, key), layout)


def _tree(node: dict[str, Any], path: Path) -> Iterator[Text]:
    if isinstance(node.get("text"), str):
        answers = ROLES.get(str(node.get("role")).lower()) == "assistant"
        yield Text("answer" if answers else "prompt", node["text"], (*path, "text"))
    for place, reply in enumerate(node.get("replies") or []):
        if isinstance(reply, dict):
            yield from _tree(reply, (*path, "replies", place))


def _speaker(value: Any) -> str | None:
    if not isinstance(value, dict) or not ("role" in value or "from" in value):
        return None
    return ROLES.get(str(value.get("role", value.get("from"))).lower(), "user")


def _role_of(speaker: str, role: str, last: bool) -> Role:
    """Return the role of a message under a key of `role`; `last`: the last one of the assistant."""
    if speaker == "system":
        return "system"
    if speaker != "assistant":
        return "prompt"
    if role == _CONVERSATION:
        return "answer"
    return _single(role) if last else "prompt"


def _message(message: dict[str, Any], role: Role, path: Path) -> Iterator[Text]:
    body = "content" if "role" in message else "value"
    reasons = [key for key in REASONING if isinstance(message.get(key), str)]
    for key in reasons:
        yield Text("reasoning", message[key], (*path, key))
    content = message.get(body)
    if isinstance(content, str):
        yield Text(role, content, (*path, body))
    for place, part in enumerate(content if isinstance(content, list) else []):
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            yield Text(role, part["text"], (*path, body, place, "text"))


def _transcript(text: str, role: str, path: Path) -> Iterator[Text]:
    """Yield the turns of Anthropic HH's transcripts; the last is the answer."""
    turns = list(_TURN.finditer(text))
    ends = [*(turn.start() for turn in turns[1:]), len(text)]
    for number, (turn, end) in enumerate(zip(turns, ends, strict=True), 1):
        body = text[turn.end() : end].strip()
        start = text.index(body, turn.end())
        last = number == len(turns) and turn[1] == "Assistant"
        yield Text(_single(role) if last else "prompt", body, path, (start, start + len(body)))


def _by_content(row: Row, layout: Format) -> Iterator[Text]:
    """Yield the texts of an annotation tool's record that its reader takes for prompt or answers."""
    try:
        parsed = layout.read(row)
    except BadRow:
        return
    prompts = {text for one in parsed for text in _texts(one.prompt)}
    answers = {
        text.strip()
        for one in parsed
        for text in ([one.completion] if isinstance(one, Demonstration) else getattr(one, "responses", []))
    }
    role: Callable[[str], Role | None] = lambda text: (  # noqa: E731
        "answer" if text.strip() in answers else "prompt" if text.strip() in prompts else None
    )
    inside = {key: row[key] for key in ("fields", "data") if isinstance(row.get(key), dict)} or row
    yield from (Text(found, text, path) for path, text in _leaves(inside, ()) if (found := role(text)) is not None)


def _texts(prompt: Prompt) -> list[str]:
    texts = [prompt] if isinstance(prompt, str) else [message["content"] for message in prompt]
    return [text.strip() for text in texts]


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(one, (*path, key))
