"""The answers of a conversation in token ids, each in the context in which it is generated."""

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from alignment.data.additions import Additions
from alignment.data.answer_ends import AnswerEnds
from alignment.data.chat import Chat, ChatWriter
from alignment.data.conversations import carried_tools
from alignment.data.masks import IGNORE, Answer, marked, written_after
from alignment.data.rewriting import behind_context
from alignment.data.rows import Message
from alignment.data.stops import PROBE
from alignment.data.tokenising import TextTokens
from alignment.errors import DataError, ModelError


class ChatAnswers:
    """Writes prompts and answers of conversations with one tokenizer's chat templates."""

    def __init__(self, writers: Sequence[ChatWriter], tokens: TextTokens, ends: AnswerEnds) -> None:
        """`writers` write any conversation, and those with tools where that is another; none without a template."""
        self._writers, self._tokens, self._ends = writers, tokens, ends
        self.additions = Additions(writers[0].control.texts if writers else ())

    def prompt_ids(self, messages: Sequence[Message], tools: str | None) -> list[int]:
        """Return the ids of messages with the generation prompt."""
        chat = self.chat(messages, tools)
        return self._tokens.ids(self._writer(chat).render(chat, ask=True), special=False, hidden=chat.hidden)

    def user_turn(self, messages: Sequence[Message]) -> tuple[list[int], str]:
        """Return the ids of messages up to where the user's next text begins, and the text that follows it.

        Raises: DataError if the chat template does not write the user's text.
        """
        chat = self.chat([*messages, {"role": "user", "content": PROBE}], None)
        before, found, after = self._writer(chat).render(chat, ask=True).rpartition(PROBE)
        if not found:
            raise DataError("the chat template does not write the text of a user's message")
        return self._tokens.ids(before, special=False, hidden=chat.hidden), after

    def cut_off(self, prompt: Sequence[Message], answer: str, tools: str | None) -> list[int]:
        """Return the ids of an answer's text as it stands behind the prompt, without a stop token."""
        chat = self.chat([*prompt, {"role": "assistant", "content": answer}], tools)
        context = self._writer(chat).render(chat, len(prompt), ask=True)
        return self._tokens.continuation(context, chat.messages[-1]["content"], special=False, hidden=chat.hidden)

    def chat(self, messages: Sequence[Message], tools: str | None) -> Chat:
        """Convert messages to the form that their chat template reads.

        Raises: ModelError if there is none, DataError if it cannot write them.
        """
        if not self._writers:
            raise ModelError(
                "the data holds chat messages and the tokenizer has no chat template. Set "
                "`chat_template: plain`, a file, or `chatml` with add_tokens, or use prompts of plain text."
            )
        given, carried = carried_tools(list(messages))
        tools = tools or carried
        return self._writers[-1 if tools else 0].prepare(given, tools)

    def answer(self, chat: Chat, place: int) -> Answer:
        """Return the answer that is message `place`, in the context in which it is generated."""
        writer, message = self._writer(chat), chat.messages[chat.added + place]
        self._ends.refuse_spelled(message["content"], writer.stop_texts, chat.hidden)
        self._ends.require_words(message["content"], chat.hidden, calls="tool_calls" in message)
        context = writer.render(chat, place, ask=True)
        written, marks = writer.render_marked(chat, place + 1)
        whole = behind_context(writer, chat, place, context, written)
        marks = [(begin + len(whole) - len(written), stop + len(whole) - len(written)) for begin, stop in marks]
        tail = written_after(context, whole, message, writer.thought)
        context_ids = self._tokens.ids(context, special=False, hidden=chat.hidden)
        ids = self._tokens.continuation(context, tail, special=False, hidden=chat.hidden, before=context_ids)
        by_template = context + tail == whole
        if by_template:
            self.additions.look(context, tail, message)
        first = next((position for position, token in enumerate(ids) if token in self._ends.stops.ids), None)
        end = self._ends.of_turn if first is not None else self._end_before_next(chat, place, context + tail)
        if by_template and first is not None and not self._tokens.has_text(ids[first + 1 :]):
            ids, end = ids[:first], ids[first]  # a template may write a line break, or an EOS, after the stop token
        ids = self._ends.ended(ids, end, stop=True)
        labels = list(ids)
        if by_template and writer.marks_answers:
            spans = marked(tail, [(begin - len(context), stop - len(context)) for begin, stop in marks], message)
            inside = self._tokens.inside(context, tail, spans, chat.hidden)
            labels = [token if position in inside else IGNORE for position, token in enumerate(ids[:-1])] + [ids[-1]]
        return Answer(context_ids, ids, labels)

    def _end_before_next(self, chat: Chat, place: int, written: str) -> int:
        """Return the stop token with which the next turn begins, where the template ends turns in this way (GLM)."""
        following = chat.messages[chat.added + place + 1 :]
        last = chat.messages[-1]
        if not following and (last.get("tool_calls") or last["content"].rstrip().endswith("</tool_call>")):
            following = [{"role": "tool", "content": PROBE}]  # what follows a call
        if following:
            with contextlib.suppress(DataError):
                longer = self._writer(chat).render(
                    replace(chat, messages=[*chat.messages[: chat.added + place + 1], following[0]]), ask=False
                )
                more = self._tokens.ids(longer[len(written) :], special=False, hidden=chat.hidden)
                if longer.startswith(written) and more and more[0] in self._ends.stops.ids:
                    return more[0]
        return self._ends.of_turn

    def _writer(self, chat: Chat) -> ChatWriter:
        return self._writers[-1] if chat.tools else self._writers[0]
