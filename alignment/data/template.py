"""From prompts and answers to token ids: what generation is conditioned on and what the loss covers."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from alignment.data.answer_ends import AnswerEnds
from alignment.data.answers import message_of_answer
from alignment.data.chat import ChatWriter
from alignment.data.chat_answers import ChatAnswers
from alignment.data.control import ControlTokens
from alignment.data.conversations import readable
from alignment.data.encoded import Sides
from alignment.data.markers import conversations, require_marks
from alignment.data.masks import IGNORE as IGNORE
from alignment.data.masks import Answer, NotWritten, TrainedRow, adds_thought, rows_of
from alignment.data.rendering import require_bounded
from alignment.data.rows import Demonstration, Message, Prompt
from alignment.data.stops import Render, Stops, eos_id, reconcile
from alignment.data.template_checks import require_sound
from alignment.data.template_texts import template_text, templates_of
from alignment.data.tokenising import TextTokens, around
from alignment.errors import DataError, ModelError


class Template:
    """Renders and tokenises prompts and answers with one tokenizer.

    Text is plain where the prompt is a string. Messages go through the recipe's chat template, which then replaces the
    tokenizer's own and is saved with it beside the model; where the recipe gives none, through the tokenizer's.
    """

    def __init__(
        self,
        tokenizer: Any,
        chat_template: str | None = None,
        eos_token: str | None = None,
        generation_config: Any = None,
    ) -> None:
        """Find the stop tokens.

        Args:
            tokenizer: a transformers tokenizer. chat_template: Jinja text, a file's path, or a name.
            eos_token: the token that ends an answer, where it is not the tokenizer's own.
            generation_config: whose `eos_token_id` also stop.
        Raises: ModelError where nothing can end an answer, or the template cannot be read.
        """
        self.tokenizer = tokenizer
        if chat_template is not None:
            tokenizer.chat_template = template_text(chat_template, tokenizer.chat_template)
        self.chat_template, with_tools = templates_of(tokenizer)
        self.eos_token_id = eos_id(tokenizer, eos_token)
        self._writers: list[ChatWriter] = []  # of any conversation, and of those with tools where that is another
        texts = [self.chat_template or "", *([with_tools] if with_tools and "tools" in with_tools else [])]
        control = ControlTokens(tokenizer, "".join(texts))
        if self.chat_template:
            eos = tokenizer.convert_ids_to_tokens(self.eos_token_id)
            self._writers = [ChatWriter(tokenizer, text, eos, control) for text in texts]
        stops = self._stops(generation_config)
        self.turn_end_id, self.stop_token_ids = stops.turn_end, stops.ids
        for writer in self._writers:
            require_marks(tokenizer, conversations(_render_of(writer)), ends_turn=self.turn_end_id is not None)
            writer.use_stops(tokenizer.convert_ids_to_tokens(self.stop_token_ids))
        self._tokens = TextTokens(tokenizer, control)
        self._ends = AnswerEnds(tokenizer, stops, control)
        self._chats = ChatAnswers(self._writers, self._tokens, self._ends)
        start = getattr(tokenizer, "decoder_start_id", None)
        self.sides = None if start is None else Sides(*around(tokenizer), start)  # of an encoder-decoder model

    def _stops(self, generation_config: Any) -> Stops:
        """Return the tokens that end an answer, by each chat template.

        Raises: ModelError where a template is unsound, or two end an answer differently.
        """
        found: list[Stops] = []
        for writer in self._writers:
            require_bounded(writer.template)
            require_sound(writer)
            found.append(reconcile(self.tokenizer, self.eos_token_id, _render_of(writer), generation_config))
        if not found:
            return reconcile(self.tokenizer, self.eos_token_id, None, generation_config)
        if found[0].turn_end != found[-1].turn_end:
            raise ModelError(
                "the tokenizer's chat templates default and tool_use end an answer with different tokens; name one of "
                "them with chat_template."
            )
        return replace(found[0], ids=list(dict.fromkeys(stop for stops in found for stop in stops.ids)))

    def end_of_answer(self, kind: str) -> str:
        """Return the text of the token that ends an answer to a prompt of a kind, `text` or `messages`."""
        turn_end = self.turn_end_id if kind == "messages" else None
        return str(self.tokenizer.convert_ids_to_tokens(self.eos_token_id if turn_end is None else turn_end))

    @property
    def hash(self) -> str:
        """Return the SHA-256 of the templates' text and the ids of the special tokens."""
        ids = [self.tokenizer.bos_token_id, self.eos_token_id, self.turn_end_id, self.stop_token_ids]
        texts = [writer.template for writer in self._writers]
        template = texts if len(texts) > 1 else self.chat_template
        decoder = [self.sides.start] if self.sides else []
        return hashlib.sha256(json.dumps([template, ids, *decoder]).encode()).hexdigest()

    def take_added_words(self) -> str:
        """Return a line about the first answer around which the template wrote words, once; "" if there is none."""
        return self._chats.additions.take()

    def text(self, prompt: Prompt) -> str:
        """Render a prompt for people and judges."""
        return readable(prompt)

    def prompt_ids(self, prompt: Prompt, tools: str | None = None) -> list[int]:
        """Return exactly the ids that generation is conditioned on; of an encoder-decoder model, those of its encoder.

        Raises: DataError where the prompt has no token at all, or the chat template refuses it.
        """
        if not isinstance(prompt, str):
            ids = self._chats.prompt_ids(prompt, tools)
        else:
            ids = self._tokens.ids(prompt, special=True)
        if self.sides:
            ids = self.sides.encoded(ids)
        if not ids and self.tokenizer.bos_token_id is not None:
            ids = [self.tokenizer.bos_token_id]
        if not ids:
            raise DataError(
                "the prompt is empty and the tokenizer has no BOS token, so there is nothing to begin from."
            )
        return ids

    def user_turn(self, messages: Sequence[Message]) -> tuple[list[int], str]:
        """Return what the user's next message is generated from, and the text that the template writes behind it.

        Raises: ModelError if the tokenizer has no chat template; DataError if it does not write the message.
        """
        return self._chats.user_turn(messages)

    def answer_ids(
        self,
        prompt: Prompt,
        answer: str,
        *,
        stop: bool = True,
        tools: str | None = None,
        reasoning_field: bool = False,
    ) -> list[int]:
        """Return the ids that follow `prompt_ids` when the answer is `answer`, with the stop token once at their end.

        Args:
            stop: False where the answer was cut off; it then follows the prompt as it stands.
            reasoning_field: the answer begins with reasoning that the data has in a field of its own.

        Raises: DataError where the answer holds a stop token before its end; NotWritten where the template cannot write
            it after the prompt, or leaves out a part of it, or the answer has no words.
        """
        if isinstance(prompt, str):
            ids = self._ends.ended(self._whole_ids(prompt, answer), self.eos_token_id, stop=stop, text=answer)
            self._ends.require_words(answer)
        elif not stop:
            ids = self._ends.ended(self._chats.cut_off(prompt, answer, tools), self._ends.of_turn, stop=False)
        else:
            chat = self._chats.chat([*prompt, message_of_answer(answer, from_field=reasoning_field)], tools)
            ids = self._chats.answer(chat, len(prompt)).ids
        return self.sides.decoded(ids) if self.sides else ids

    def sampled_ids(self, prompt: Prompt, answer: str, *, stop: bool = True) -> list[int]:
        """Return `answer_ids` of an answer that a model wrote, which may end inside a thought.

        An empty thought that the chat template writes before the answer was not sampled and is left out.

        Raises: DataError where the answer holds a stop token before its end.
        """
        if isinstance(prompt, str):
            ids = self._ends.ended(self._whole_ids(prompt, answer), self.eos_token_id, stop=stop)
            return self.sides.decoded(ids) if self.sides else ids
        try:
            ids = self.answer_ids(prompt, answer, stop=stop)
            added = adds_thought(str(self.tokenizer.decode(ids)), answer)
        except NotWritten:
            added = True
        if added:
            ids = self._ends.ended(self._chats.cut_off(prompt, answer, None), self._ends.of_turn, stop=stop)
            return self.sides.decoded(ids) if self.sides else ids
        return ids

    def answer_text(self, prompt_ids: list[int], ids: list[int]) -> str:
        """Return the text of sampled ids as it continues the prompt, with the space that decoding alone may drop.

        A decoder behind an encoder begins a text of its own.
        """
        if self.sides:
            return str(self.tokenizer.decode(ids, skip_special_tokens=True))
        before = self.tokenizer.decode(prompt_ids, skip_special_tokens=True)
        after = self.tokenizer.decode([*prompt_ids, *ids], skip_special_tokens=True)
        if after.startswith(before):
            return str(after[len(before) :])
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def demonstrations(self, row: Demonstration, sampled: Answer | None = None) -> list[TrainedRow]:
        """Return the training rows of one demonstration: several where the chat template rewrites earlier turns.

        Arguments and errors as `answers`.
        """
        return rows_of(self.answers(row, sampled))

    def answers(self, row: Demonstration, sampled: Answer | None = None) -> list[Answer]:
        """Return the trained answers of one demonstration, each in its context.

        For text without a prompt every token counts, the leading BOS too, which no position predicts.

        Args:
            sampled: the last answer as a policy sampled it, in place of the one that is rendered.

        Raises: DataError where the row cannot be written in tokens.
        """
        if sampled is not None and isinstance(row.prompt, str):
            return [sampled]
        if row.prompt == "" and not self.sides:
            answer = self._text_ids(row.completion)
            head = self._tokens.ids("", special=True)
            return [Answer([] if answer[: len(head)] == head else head, answer, answer)]
        if isinstance(row.prompt, str):
            answer = self.answer_ids(row.prompt, row.completion)
            return [Answer(self.prompt_ids(row.prompt), answer, answer)]
        chat = self._chats.chat(row.conversation() if sampled is None else row.prompt, row.tools)
        places = row.trained() if sampled is None else row.trained()[:-1]
        found = [self._chats.answer(chat, place) for place in places]
        found = [self.sides.answer(answer) for answer in found] if self.sides else found
        return found if sampled is None else [*found, sampled]

    def _text_ids(self, text: str) -> list[int]:
        """Return the ids of text without a prompt, with a stop token at its end."""
        self._ends.require_words(text)
        ids = self._whole_ids("", text)
        return ids if ids and ids[-1] in self.stop_token_ids else [*ids, self.eos_token_id]

    def _whole_ids(self, prompt: str, text: str) -> list[int]:
        """Tokenise what follows a prompt of text; blanks behind a stop token, as templates write them, are left out.

        A decoder behind an encoder begins a text of its own.
        """
        ids = self._following(prompt, text.rstrip())
        if text != text.rstrip() and not (ids and ids[-1] in self.stop_token_ids):
            return self._following(prompt, text)
        return ids

    def _following(self, prompt: str, text: str) -> list[int]:
        if self.sides:
            return self._tokens.ids(text, special=False)
        return self._tokens.continuation(prompt, text, special=True)


def _render_of(writer: ChatWriter) -> Render:
    return lambda messages: writer.render(writer.prepare(messages, None), ask=False)
