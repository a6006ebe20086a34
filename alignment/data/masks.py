"""Which tokens of a conversation are trained: the assistant's answers, each in the context in which it is generated.

Masks are constructed, never found by searching the rendered text:

1. For each answer, the messages before it are rendered with the generation prompt, as for sampling: the context. They
   are rendered again with the answer. What is written beyond the context, up to the stop token, is the answer.
2. Where the template marks the assistant's text with `{% generation %}`, the marks decide within the answer.
3. Answers are joined into one row while the tokens so far are a prefix of the next answer's context. Where they are
   not, the template rewrites history, and the next answer begins a row of its own.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from alignment.data.answers import THOUGHTS
from alignment.data.call_forms import words_of
from alignment.data.chat import in_tags
from alignment.data.conversations import REASONING
from alignment.errors import DataError

IGNORE = -100  # label of a token without a loss
Span = tuple[int, int]  # characters, begin and end
Tags = tuple[str, str]  # before and after a thought


class NotWritten(DataError):
    """The chat template does not write an answer completely after its generation prompt, or the answer is empty.

    A sampled answer is tokenised unchanged instead (`Template.sampled_ids`).
    """


@dataclass(frozen=True, slots=True)
class Answer:
    """One trained answer: the tokens that sampling would be conditioned on, and those that follow."""

    context: list[int]
    ids: list[int]  # with the stop token
    labels: list[int]  # of `ids`


@dataclass(frozen=True, slots=True)
class TrainedRow:
    """Tokens of one training row; labels are -100 outside the trained answers."""

    input_ids: list[int]
    labels: list[int]


def rows_of(answers: Iterable[Answer]) -> list[TrainedRow]:
    """Join answers whose contexts continue one another."""
    rows: list[TrainedRow] = []
    for answer in answers:
        labels = [IGNORE] * len(answer.context)
        if rows and answer.context[: len(rows[-1].input_ids)] == rows[-1].input_ids:
            before = rows.pop().labels
            labels[: len(before)] = before
        rows.append(TrainedRow(answer.context + answer.ids, labels + answer.labels))
    return rows


def written_after(context: str, whole: str, message: dict[str, Any], thought: Tags | None) -> str:
    """Return what a template writes of an answer after the generation prompt.

    Args:
        context: the messages before, rendered with the generation prompt. whole: the same with the answer.
        message: the answer, as the template reads it. thought: the tags of reasoning that the template has.

    Raises: NotWritten if the template cannot write the answer there, or leaves out a part of it.
    """
    opened = next((tags for tags in THOUGHTS if context.rstrip().endswith(tags[0])), None)
    if thought is not None:
        _require_one_thought(str(message["content"]), thought, is_open=opened is not None)
    tail = whole[len(context) :] if whole.startswith(context) else None
    if opened is not None:
        tail = _in_thought(context, tail, message, opened)
    elif tail is None:
        tail = _as_it_stands(context, message)
    _require_whole(tail, message)
    return tail


def _require_one_thought(content: str, tags: Tags, *, is_open: bool) -> None:
    """Refuse tags of reasoning that are anywhere but around one thought at the beginning.

    Args:
        is_open: whether the generation prompt has opened the thought, which the answer then only closes.
    """
    begin, end = tags
    inside, closed, rest = content.partition(end)
    opens = inside.lstrip().startswith(begin)
    more = begin in inside.lstrip().removeprefix(begin) or begin in rest or end in rest
    complete = (opens or is_open) if closed else not opens
    if complete and not more:
        return
    raise NotWritten(
        f"{begin} and {end} in the answer {_shown(content)} are not around one thought at its beginning, and the chat "
        "template gives them that meaning; close the thought, or take the tags out of the text"
    )


def _in_thought(context: str, tail: str | None, message: dict[str, Any], tags: Tags) -> str:
    """Continue a generation prompt that has opened the reasoning tag."""
    if tail is not None and tags[0] not in tail and tags[1] in tail:
        return tail  # else the template begins a second thought
    content = _with_reasoning(message, tags)
    if tags[1] not in content or message.get("tool_calls"):
        raise NotWritten(
            f"the chat template's generation prompt opens {tags[0]}, and the answer {_shown(content)} has no reasoning "
            f"that ends with {tags[1]}, so it would be learned as reasoning; give the reasoning, or set chat_template "
            "to one that does not open it"
        )
    blank = context[len(context.rstrip()) :]
    inside = content.lstrip().removeprefix(tags[0]) if content.lstrip().startswith(tags[0]) else content
    return inside.removeprefix(blank)


def _as_it_stands(context: str, message: dict[str, Any]) -> str:
    """Return the content itself if the template writes something else in place of the generation prompt."""
    closed = next((tags for tags in THOUGHTS if context.rstrip().endswith(tags[1])), None)
    reasons = any(message.get(name) for name in REASONING) or (closed and closed[1] in message["content"])
    if message.get("tool_calls") or reasons:
        what = "reasoning" if reasons else "a tool call"
        raise NotWritten(
            f"the chat template does not write an answer with {what} after its generation prompt "
            f"({_shown(context[-40:])}), so training would differ from sampling; leave it out, or set chat_template to "
            "one that does"
        )
    return str(message["content"])


def adds_thought(written: str, answer: str) -> bool:
    """Whether the template adds an empty thought before the answer."""
    return any(
        end not in answer and re.match(rf"\s*{re.escape(begin)}\s*{re.escape(end)}", written) for begin, end in THOUGHTS
    )


def _with_reasoning(message: dict[str, Any], tags: Tags) -> str:
    reasoning = next((message[name] for name in REASONING if message.get(name)), None)
    return in_tags(reasoning, message["content"], tags) if reasoning else str(message["content"])


def _require_whole(tail: str, message: dict[str, Any]) -> None:
    """Refuse a template that leaves out a part of the answer or changes its white space inside.

    White space around the answer and its thought, and tags of reasoning, do not count.
    """
    if message["content"].strip() in tail and not message.keys() & {"tool_calls", *REASONING}:
        return
    tags = "|".join(re.escape(tag) for pair in THOUGHTS for tag in pair)
    written = re.sub(rf"\s|{tags}", "", tail)
    texts = [message["content"], *(message.get(name) or "" for name in REASONING)]
    words = [word for call in message.get("tool_calls") or [] for word in words_of(call)]
    for text in (part for whole in [*texts, *words] for part in re.split(tags, str(whole))):
        if re.sub(r"\s", "", text) not in written:
            raise NotWritten(
                f"the chat template leaves out a part of the answer, {_shown(text.strip())}; give it in the form that "
                "the template writes, or set chat_template to one that writes it"
            )
    for text in (part.strip() for whole in texts for part in re.split(tags, str(whole))):
        if text not in tail:
            raise NotWritten(
                f"the chat template changes the white space inside the answer {_shown(text)}; set chat_template to one "
                "that writes the answer as it is"
            )


def marked(tail: str, marks: Sequence[Span], message: dict[str, Any]) -> list[Span]:
    """Return the characters of an answer that the template marks as the assistant's.

    Args:
        tail: what the template writes after the generation prompt. marks: in characters of `tail`, from below 0 on.

    Raises: NotWritten if the marks leave out a part of the answer.
    """
    spans = [(max(begin, 0), min(end, len(tail))) for begin, end in marks if end > 0 and begin < len(tail)]
    try:
        _require_whole("".join(tail[begin:end] for begin, end in spans), message)
    except NotWritten:
        raise NotWritten(
            "the marks {% generation %} of the chat template leave out a part of the answer "
            f"{_shown(message['content'])}; correct them, or set chat_template to one without"
        ) from None
    return spans


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
