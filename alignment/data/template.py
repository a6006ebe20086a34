"""From prompts and answers to token ids: what generation is conditioned on and what the loss covers."""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from alignment.data.additions import Additions
from alignment.data.answers import behind_thought, message_of_answer
from alignment.data.chat import CONTROL_ALONE, EMPTY, Chat, ChatWriter
from alignment.data.control import ControlTokens
from alignment.data.conversations import carried_tools, readable
from alignment.data.markers import conversations, require_marks
from alignment.data.masks import IGNORE as IGNORE
from alignment.data.masks import Answer, NotWritten, Span, TrainedRow, adds_thought, marked, rows_of, written_after
from alignment.data.rendering import require_bounded
from alignment.data.rewriting import behind_context
from alignment.data.rows import Demonstration, Message, Prompt
from alignment.data.stops import PROBE, Render, Stops, eos_id, reconcile
from alignment.data.template_texts import template_text, templates_of
from alignment.errors import DataError, ModelError
from alignment.strict_json import shown

LONGEST_TEXT = 2**21  # characters of one prompt with its answer, some 500,000 tokens


class Template:
    """How one tokenizer writes prompts and answers.

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
        self._opening = _opening(tokenizer)
        self._writers: list[ChatWriter] = []  # of any conversation, and of those with tools where that is another
        texts = [self.chat_template or "", *([with_tools] if with_tools and "tools" in with_tools else [])]
        self._control = ControlTokens(tokenizer, "".join(texts))
        if self.chat_template:
            eos = tokenizer.convert_ids_to_tokens(self.eos_token_id)
            self._additions = Additions(self._control.texts)
            self._writers = [ChatWriter(tokenizer, text, eos, self._control) for text in texts]
        stops = self._stops(generation_config)
        self.turn_end_id, self.stop_token_ids = stops.turn_end, stops.ids
        for writer in self._writers:
            require_marks(tokenizer, conversations(_render_of(writer)), ends_turn=self.turn_end_id is not None)
            writer.use_stops(tokenizer.convert_ids_to_tokens(self.stop_token_ids))

    def _stops(self, generation_config: Any) -> Stops:
        """Return the tokens that end an answer, by each chat template.

        Raises: ModelError where a template is unsound, or two end an answer differently.
        """
        found: list[Stops] = []
        for writer in self._writers:
            require_bounded(writer.template)
            writer.require_sound()
            found.append(reconcile(self.tokenizer, self.eos_token_id, _render_of(writer), generation_config))
        if not found:
            return reconcile(self.tokenizer, self.eos_token_id, None, generation_config)
        if found[0].turn_end != found[-1].turn_end:
            raise ModelError(
                "the tokenizer's chat templates default and tool_use end an answer with different tokens; name one of "
                "them with chat_template."
            )
        return replace(found[0], ids=list(dict.fromkeys(stop for stops in found for stop in stops.ids)))

    @property
    def hash(self) -> str:
        """Return the SHA-256 of the templates' text and the ids of the special tokens."""
        ids = [self.tokenizer.bos_token_id, self.eos_token_id, self.turn_end_id, self.stop_token_ids]
        texts = [writer.template for writer in self._writers]
        template = texts if len(texts) > 1 else self.chat_template
        return hashlib.sha256(json.dumps([template, ids]).encode()).hexdigest()

    def text(self, prompt: Prompt) -> str:
        """Render a prompt for people and judges."""
        return readable(prompt)

    def prompt_ids(self, prompt: Prompt, tools: str | None = None) -> list[int]:
        """Return exactly the ids that generation is conditioned on.

        Raises: DataError where the prompt has no token at all, or the chat template refuses it.
        """
        if not isinstance(prompt, str):
            chat = self._chat(prompt, tools)
            ids = self._ids(self._writer(chat).render(chat, ask=True), special=False, hidden=chat.hidden)
        else:
            ids = self._ids(prompt, special=True)
        if not ids and self.tokenizer.bos_token_id is not None:
            ids = [self.tokenizer.bos_token_id]
        if not ids:
            raise DataError(
                "the prompt is empty and the tokenizer has no BOS token, so there is nothing to begin from."
            )
        return ids

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
            ids = self._ended(self._whole_ids(prompt, answer), self.eos_token_id, stop=stop, text=answer)
            self._require_words(answer)
            return ids
        if not stop:
            return self._ended(self._as_it_stands(prompt, answer, tools), self._end_of_turn, stop=False)
        chat = self._chat([*prompt, message_of_answer(answer, from_field=reasoning_field)], tools)
        return self._answer(chat, len(prompt)).ids

    def sampled_ids(self, prompt: Prompt, answer: str, *, stop: bool = True) -> list[int]:
        """Return `answer_ids` of an answer that a model wrote: one that leaves a thought open is no fault of the data.

        An empty thought that the chat template writes before the answer was not sampled and is left out.

        Raises: DataError where the answer holds a stop token before its end.
        """
        if isinstance(prompt, str):
            return self._ended(self._whole_ids(prompt, answer), self.eos_token_id, stop=stop)
        try:
            ids = self.answer_ids(prompt, answer, stop=stop)
            added = adds_thought(str(self.tokenizer.decode(ids)), answer)
        except NotWritten:
            added = True
        if added:
            return self._ended(self._as_it_stands(prompt, answer, None), self._end_of_turn, stop=stop)
        return ids

    def _as_it_stands(self, prompt: Prompt, answer: str, tools: str | None) -> list[int]:
        chat = self._chat([*prompt, {"role": "assistant", "content": answer}], tools)
        context = self._writer(chat).render(chat, len(prompt), ask=True)
        return self._continuation(context, chat.messages[-1]["content"], special=False, hidden=chat.hidden)

    def answer_text(self, prompt_ids: list[int], ids: list[int]) -> str:
        """Return the text of sampled ids as it continues the prompt, with the space that decoding alone may drop."""
        before = self.tokenizer.decode(prompt_ids, skip_special_tokens=True)
        after = self.tokenizer.decode([*prompt_ids, *ids], skip_special_tokens=True)
        if after.startswith(before):
            return str(after[len(before) :])
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def demonstrations(self, row: Demonstration, sampled: Answer | None = None) -> list[TrainedRow]:
        """Return the training rows of one demonstration: several where the chat template rewrites earlier turns.

        For text without a prompt every token counts, the leading BOS too, which no position predicts.

        Args:
            sampled: the last answer as a policy sampled it, in place of the one that is rendered.

        Raises: DataError where the row cannot be written in tokens.
        """
        if sampled is not None and isinstance(row.prompt, str):
            return rows_of([sampled])
        if row.prompt == "":
            answer = self._text_ids(row.completion)
            head = self._ids("", special=True)
            head = [] if answer[: len(head)] == head else head
            return [TrainedRow(head + answer, [IGNORE] * len(head) + answer)]
        if isinstance(row.prompt, str):
            head, answer = self.prompt_ids(row.prompt), self.answer_ids(row.prompt, row.completion)
            return [TrainedRow(head + answer, [IGNORE] * len(head) + answer)]
        if sampled is not None:
            chat = self._chat(row.prompt, row.tools)
            return rows_of([*(self._answer(chat, place) for place in row.trained()[:-1]), sampled])
        chat = self._chat(row.conversation(), row.tools)
        return rows_of(self._answer(chat, place) for place in row.trained())

    def _text_ids(self, text: str) -> list[int]:
        """Return the ids of text without a prompt, with a stop token at its end."""
        self._require_words(text)
        ids = self._whole_ids("", text)
        return ids if ids and ids[-1] in self.stop_token_ids else [*ids, self.eos_token_id]

    def _whole_ids(self, prompt: str, text: str) -> list[int]:
        """Tokenise what follows a prompt of text; blanks behind a stop token, as templates write them, are left out."""
        ids = self._continuation(prompt, text.rstrip(), special=True)
        if text != text.rstrip() and not (ids and ids[-1] in self.stop_token_ids):
            return self._continuation(prompt, text, special=True)
        return ids

    @property
    def _end_of_turn(self) -> int:
        return self.eos_token_id if self.turn_end_id is None else self.turn_end_id

    def _answer(self, chat: Chat, place: int) -> Answer:
        """Return the answer that is message `place`, in the context in which it is generated."""
        writer, message = self._writer(chat), chat.messages[chat.added + place]
        self._refuse_stop(message["content"], writer.stop_texts, chat)
        self._require_words(message["content"], chat.hidden, calls="tool_calls" in message)
        context = writer.render(chat, place, ask=True)
        written, marks = writer.render_marked(chat, place + 1)
        whole = behind_context(writer, chat, place, context, written)
        marks = [(begin + len(whole) - len(written), stop + len(whole) - len(written)) for begin, stop in marks]
        tail = written_after(context, whole, message, writer.thought)
        context_ids = self._ids(context, special=False, hidden=chat.hidden)
        ids = self._continuation(context, tail, special=False, hidden=chat.hidden, before=context_ids)
        by_template = context + tail == whole
        if by_template:
            self._additions.tell(context, tail, message)
        first = next((position for position, token in enumerate(ids) if token in self.stop_token_ids), None)
        end = self._end_of_turn if first is not None else self._end_before_next(chat, place, context + tail)
        if by_template and first is not None and not self._has_text(ids[first + 1 :]):
            ids, end = ids[:first], ids[first]  # a template may write a line break, or an EOS, after the stop token
        ids = self._ended(ids, end, stop=True)
        labels = list(ids)
        if by_template and writer.marks_answers:
            spans = marked(tail, [(begin - len(context), stop - len(context)) for begin, stop in marks], message)
            inside = self._tokens_inside(context, tail, spans, chat.hidden)
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
                more = self._ids(longer[len(written) :], special=False, hidden=chat.hidden)
                if longer.startswith(written) and more and more[0] in self.stop_token_ids:
                    return more[0]
        return self._end_of_turn

    def _has_text(self, ids: list[int]) -> bool:
        return bool(ids) and bool(self.tokenizer.decode(ids, skip_special_tokens=True).strip())

    def _ended(self, ids: list[int], end: int, *, stop: bool, text: str = "") -> list[int]:
        """Return an answer's ids with one stop token at their end, or without.

        Raises: DataError where a stop token stands before the end, or `text` has nothing else.
        """
        while ids and ids[-1] in self.stop_token_ids:
            end = ids[-1] if ids[-1] == self.turn_end_id else end  # as the answer was rendered beforehand
            ids = ids[:-1]
        if text.strip() and not ids:
            raise DataError(EMPTY.format(text))
        inner = next((token for token in ids if token in self.stop_token_ids), None)
        if inner is not None:
            raise self._stop_inside(self.tokenizer.convert_ids_to_tokens(inner))
        return [*ids, end] if stop else ids

    def _refuse_stop(self, content: str, stops: Sequence[str], chat: Chat) -> None:
        """Refuse an answer that spells a stop token; hidden behind a stand-in it would be learned as text."""
        spelled = next((text for stand_in, text in chat.hidden.items() if stand_in in content and text in stops), None)
        if spelled is not None:
            raise self._stop_inside(spelled)

    def _require_words(self, answer: str, hidden: Mapping[str, str] | None = None, *, calls: bool = False) -> None:
        """Refuse an answer, behind its thought, that spells control tokens and nothing else."""
        if not calls and self._control.is_bare(behind_thought(answer)):
            text = "".join((hidden or {}).get(letter, letter) for letter in behind_thought(answer))
            raise NotWritten(CONTROL_ALONE.format(shown(text.strip())))

    @staticmethod
    def _stop_inside(token: str) -> DataError:
        return DataError(
            f"an answer holds the stop token {token!r} before its end, so a model would learn to stop there; take it "
            "out of the text, or give a conversation that was rendered beforehand as messages, turn by turn."
        )

    def _tokens_inside(self, context: str, tail: str, spans: Sequence[Span], hidden: Mapping[str, str]) -> set[int]:
        """Return the places, in the answer, of the tokens within characters of `tail`."""
        places: set[int] = set()
        for begin, end in spans:
            low, high = (
                len(self._continuation(context, tail[:to], special=False, hidden=hidden)) for to in (begin, end)
            )
            places |= set(range(low, high))
        return places

    def _writer(self, chat: Chat) -> ChatWriter:
        return self._writers[-1] if chat.tools else self._writers[0]

    def _chat(self, messages: Sequence[Message], tools: str | None) -> Chat:
        if not self._writers:
            raise ModelError(
                "the data holds chat messages and the tokenizer has no chat template. Set "
                "`chat_template: plain`, a file, or `chatml` with add_tokens, or use prompts of plain text."
            )
        given, carried = carried_tools(list(messages))
        tools = tools or carried
        return self._writers[-1 if tools else 0].prepare(given, tools)

    def _ids(self, text: str, *, special: bool, hidden: Mapping[str, str] | None = None) -> list[int]:
        """Tokenise; `special` puts the tokenizer's own BOS before text without it, never the EOS that some put behind.

        Raises: DataError where the text is longer than any context: to count its tokens takes minutes.
        """
        if len(text) > LONGEST_TEXT:
            raise DataError(
                f"prompt and answer have {len(text):,} characters, more than the {LONGEST_TEXT:,} that are tokenised; "
                "cut the row into several."
            )
        if hidden:
            return self._control.ids(text, hidden)
        ids = list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        begun = ids[: len(self._opening)] == self._opening  # a prompt that was rendered beforehand
        return self._opening + ids if special and not begun else ids

    def _continuation(
        self,
        head: str,
        tail: str,
        *,
        special: bool,
        hidden: Mapping[str, str] | None = None,
        before: list[int] | None = None,
    ) -> list[int]:
        """Tokenise `tail` as what follows `head`.

        A tokenizer may put a space before whatever it is given alone, so the two are tokenised together where the
        prompt's ids stay what they are, and otherwise behind a character that does not join with what follows.
        """
        if not tail:
            return []
        before = self._ids(head, special=special, hidden=hidden) if before is None else before
        whole = self._ids(head + tail, special=special, hidden=hidden)
        if whole[: len(before)] == before and len(whole) > len(before):
            return whole[len(before) :]
        for anchor in ("\n", "a", ".", "0"):
            alone = self._ids(anchor, special=False)
            joined = self._ids(anchor + tail, special=False, hidden=hidden)
            if joined[: len(alone)] == alone and len(joined) > len(alone):
                return joined[len(alone) :]
        return self._ids(tail, special=False, hidden=hidden)


def _render_of(writer: ChatWriter) -> Render:
    return lambda messages: writer.render(writer.prepare(messages, None), ask=False)


def _opening(tokenizer: Any) -> list[int]:
    """Return the ids that the tokenizer puts before any text, BOS mostly."""
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    full = list(tokenizer("a")["input_ids"])
    for start in range(len(full)):
        if full[start : start + len(bare)] == bare:
            return full[:start]
    return []
