"""Templates that write the messages before an answer in another way once the answer is there.

gpt-oss's template has a call's thought in the context of the answer that follows the call, and leaves the thought out
where that answer is written. What is trained is the answer as it is generated: behind the context with the thought.
"""

import contextlib

from alignment.data.answers import THOUGHTS
from alignment.data.chat import Chat, ChatWriter
from alignment.data.masks import NotWritten
from alignment.errors import DataError


def behind_context(writer: ChatWriter, chat: Chat, place: int, context: str, whole: str) -> str:
    """Return the rendered conversation with message `place`, an answer, behind the context of this answer.

    What the template writes of the answer is found in a conversation of two messages; the whole must end with the same.

    Args:
        context: the messages before, rendered with the generation prompt. whole: the same with the answer.

    Raises: NotWritten if the template rewrites the messages before, and writes the answer in yet another way.
    """
    if whole.startswith(context):
        return whole
    before = writer.render(chat, place, ask=False)
    header = context.removeprefix(before)
    with contextlib.suppress(DataError):
        short = Chat([{"role": "user", "content": "Hi"}, chat.messages[chat.added + place]], None)
        asked, answered = writer.render(short, 1, ask=True), writer.render(short, 2, ask=False)
        answer = answered.removeprefix(asked)
        if answered.startswith(asked) and whole.endswith(header + answer):
            return context + answer
    if whole.startswith(before) or any(context.rstrip().endswith(tag) for tags in THOUGHTS for tag in tags):
        return whole  # it differs in the header of the answer alone, or a thought is open or empty there
    raise NotWritten(
        "the chat template writes the messages before an answer in another way once the answer is there, and this "
        "answer not as it would after its generation prompt; set chat_template to one that keeps the messages before"
    )
