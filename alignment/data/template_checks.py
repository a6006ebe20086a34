"""Checks that a chat template can be trained with, made before it is used."""

import re

from alignment.data.answers import THOUGHTS
from alignment.data.chat import Chat, ChatWriter
from alignment.data.stops import PROBE
from alignment.errors import DataError, ModelError


def require_sound(writer: ChatWriter) -> None:
    """Refuse a chat template with which no answer can be trained correctly.

    Raises: ModelError.
    """
    _require_messages_written(writer)
    _require_generation_prompt(writer)
    _require_sound_marks(writer)


def _require_messages_written(writer: ChatWriter) -> None:
    """Refuse a chat template that leaves out what a message holds: all answers would be answers to one prompt."""
    for role, place in (("user", 0), ("assistant", 1)):
        words = [f"{PROBE} {role} {number}" for number in (1, 2)]
        chats = [[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}] for _ in words]
        for chat, word in zip(chats, words, strict=True):
            chat[place]["content"] = word
        texts = {writer.render(Chat(chat[: place + 1], None), ask=place == 0) for chat in chats}
        if len(texts) == 1:
            raise ModelError(
                f"the chat template of {writer.name} writes the same text for different messages "
                f"of the {role}; use the model's own template, or give chat_template."
            )


def _require_generation_prompt(writer: ChatWriter) -> None:
    """Refuse a template whose header of an answer would be trained as a part of the answer.

    Raises: ModelError.
    """
    question, answer = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": PROBE}
    try:
        asked, plain = (writer.render(Chat([question], None), ask=ask) for ask in (True, False))
        whole = writer.render(Chat([question, answer], None), ask=False)
        longer = writer.render(Chat([question, answer, question], None), ask=False)
    except DataError:
        return
    if asked != plain or not whole.startswith(plain) or PROBE not in whole:
        return
    header = whole[len(plain) :].partition(PROBE)[0]
    header = re.sub("|".join(re.escape(tag) for tags in THOUGHTS for tag in tags), "", header).strip()
    both = enumerate(zip(whole, longer, strict=False))
    extra = whole[next((place for place, (one, other) in both if one != other), len(whole)) :]  # written at the end
    if header:
        raise ModelError(
            f"the chat template ignores add_generation_prompt, so {header!r} would be trained as a part of every "
            "answer; set chat_template to one that writes it where add_generation_prompt is true."
        )
    if extra.strip() and PROBE not in extra and plain.endswith(extra):
        raise ModelError(
            f"the chat template ends every conversation with {extra.strip()!r}, with which an answer begins; set "
            "chat_template to one that writes it only where add_generation_prompt is true."
        )


def _require_sound_marks(writer: ChatWriter) -> None:
    """Refuse a template whose `{% generation %}` marks another's words.

    Raises: ModelError.
    """
    words = {role: f"{PROBE} {role}" for role in ("system", "user", "assistant")}
    for roles in (("user", "assistant"), ("system", "user", "assistant")) if writer.marks_answers else ():
        chat = Chat([{"role": role, "content": words[role]} for role in roles], None)
        try:
            text, spans = writer.render_marked(chat, len(roles))
        except DataError:  # the template has no such role
            continue
        marked = "".join(text[begin:end] for begin, end in spans)
        wrong = next((role for role in roles if role != "assistant" and words[role] in marked), None)
        if wrong is not None:
            raise ModelError(
                f"the chat template marks a message of the {wrong} with {{% generation %}}, which is no answer of "
                "the assistant; correct its marks, or set chat_template to one without."
            )
