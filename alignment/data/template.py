"""From prompts and answers to token ids: what generation is conditioned on and what the loss covers."""

import hashlib
import json
from pathlib import Path
from typing import Any

from alignment.data.conversations import carried_tools, readable, with_tools
from alignment.data.rendering import require_bounded
from alignment.data.rows import Demonstration, Message, Prompt
from alignment.data.stops import PROBE, eos_id, reconcile
from alignment.errors import DataError, ModelError

IGNORE = -100  # label of a token that no loss covers
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
            tokenizer: a transformers tokenizer. chat_template: Jinja text or a file's path.
            eos_token: the token that ends an answer, where it is not the tokenizer's own.
            generation_config: whose `eos_token_id` also stop.
        Raises: ModelError where nothing can end an answer, or the template cannot be read.
        """
        self.tokenizer = tokenizer
        if chat_template is not None:
            tokenizer.chat_template = _template_text(chat_template)
        self.chat_template: str | None = _named_template(tokenizer.chat_template)
        if self.chat_template:
            require_bounded(self.chat_template)
        self.eos_token_id = eos_id(tokenizer, eos_token)
        self._eos_token = tokenizer.convert_ids_to_tokens(self.eos_token_id)
        self._opening = _opening(tokenizer)
        if self.chat_template:
            self._require_messages_written()
        render = (lambda messages: self._render(messages, None, ask=False)) if self.chat_template else None
        stops = reconcile(tokenizer, self.eos_token_id, render, generation_config)
        self.turn_end_id, self.stop_token_ids = stops.turn_end, stops.ids

    @property
    def hash(self) -> str:
        """Return the SHA-256 of the template's text and the ids of the special tokens."""
        ids = [self.tokenizer.bos_token_id, self.eos_token_id, self.turn_end_id, self.stop_token_ids]
        return hashlib.sha256(json.dumps([self.chat_template, ids]).encode()).hexdigest()

    def text(self, prompt: Prompt) -> str:
        """Render a prompt for people and judges."""
        return readable(prompt)

    def prompt_ids(self, prompt: Prompt, tools: str | None = None) -> list[int]:
        """Return exactly the ids that generation is conditioned on.

        Raises: DataError where the prompt has no token at all, or the chat template refuses it.
        """
        ids = self._ids(self._render(prompt, tools), special=isinstance(prompt, str))
        if not ids and self.tokenizer.bos_token_id is not None:
            ids = [self.tokenizer.bos_token_id]
        if not ids:
            raise DataError(
                "the prompt is empty and the tokenizer has no BOS token, so there is nothing to begin from."
            )
        return ids

    def answer_ids(self, prompt: Prompt, answer: str, *, stop: bool = True, tools: str | None = None) -> list[int]:
        """Return the ids that follow `prompt_ids` when the answer is `answer`, with the stop token once at their end.

        Raises: DataError where the answer holds a stop token before its end.
        """
        plain = isinstance(prompt, str)
        end = self.eos_token_id if plain or self.turn_end_id is None else self.turn_end_id
        head, tail, rendered = self._render(prompt, tools), answer, False
        if not isinstance(prompt, str):
            whole = self._render([*prompt, {"role": "assistant", "content": answer}], tools, ask=False)
            rendered = whole.startswith(head)
            tail = whole[len(head) :] if rendered else answer
        ids = self._continuation(head, tail, special=plain)
        if rendered and end in ids:  # a template may write a line break after the stop token
            ids = ids[: len(ids) - ids[::-1].index(end)]
        while ids and ids[-1] in self.stop_token_ids:
            end = self.turn_end_id if ids[-1] == self.turn_end_id else end  # as the answer was rendered beforehand
            ids = ids[:-1]
        inner = [token for token in ids if token in self.stop_token_ids]
        if inner:
            raise DataError(
                f"an answer holds the stop token {self.tokenizer.convert_ids_to_tokens(inner[0])!r} before its end, so "
                "a model would learn to stop there; take it out of the text."
            )
        return [*ids, end] if stop else ids

    def answer_text(self, prompt_ids: list[int], ids: list[int]) -> str:
        """Return the text of sampled ids as it continues the prompt, with the space that decoding alone may drop."""
        before = self.tokenizer.decode(prompt_ids, skip_special_tokens=True)
        after = self.tokenizer.decode([*prompt_ids, *ids], skip_special_tokens=True)
        if after.startswith(before):
            return str(after[len(before) :])
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def demonstration(self, row: Demonstration) -> tuple[list[int], list[int]]:
        """Return `input_ids` and `labels` of one row; labels are -100 off the assistant's turns.

        For text without a prompt every token counts, the leading BOS too, which no position predicts.
        """
        if row.prompt == "":
            head = self._ids("", special=True)
            answer = self.answer_ids("", row.completion)
            return head + answer, [IGNORE] * len(head) + answer
        head = self.prompt_ids(row.prompt, row.tools)
        answer = self.answer_ids(row.prompt, row.completion, tools=row.tools)
        labels = [IGNORE] * len(head)
        if not isinstance(row.prompt, str) and any(message["role"] == "assistant" for message in row.prompt):
            labels = self._turn_labels(row.prompt, row.tools, head)
        return head + answer, labels + answer

    def _turn_labels(self, prompt: list[Message], tools: str | None, head: list[int]) -> list[int]:
        """Label the assistant's earlier turns, from the end of the header to the end-of-turn token."""
        text = self._render(prompt, tools)
        labels, cursor = [IGNORE] * len(head), 0
        for index, message in enumerate(prompt):
            content = message["content"].strip()
            begin = text.find(content, cursor)
            end = begin + len(content)
            if message["role"] != "assistant":
                cursor = end if begin >= 0 else cursor
                continue
            before = self._render(prompt[:index], tools)
            through = self._render(prompt[: index + 1], tools, ask=False).rstrip()
            # a template may rewrite earlier turns, dropping their reasoning, say; then the words alone are learned
            if text.startswith(before) and text.startswith(through) and len(before) < len(through):
                begin, end = len(before), len(through)
            if begin < 0 or begin == end:
                continue
            cursor = end
            inside = self._tokens_between(text, begin, end)
            if inside and head[inside[-1]] not in self.stop_token_ids and head[inside[-1] + 1] in self.stop_token_ids:
                inside.append(inside[-1] + 1)
            for place in inside:
                labels[place] = head[place]
        return labels

    def _tokens_between(self, text: str, begin: int, end: int) -> list[int]:
        """Return the places of the tokens that lie within characters `begin` to `end`."""
        if not self.tokenizer.is_fast:
            low, high = (len(self._ids(text[:place], special=False)) for place in (begin, end))
            return list(range(low, high))
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        spans = encoded["offset_mapping"]
        return [place for place, (low, high) in enumerate(spans) if begin <= low and high <= end and low < high]

    def _render(self, prompt: Prompt, tools: str | None, *, ask: bool = True) -> str:
        """Render to text; `ask` ends it with the header of the answer to come."""
        if isinstance(prompt, str):
            return prompt
        if not self.chat_template:
            raise ModelError(
                "the data holds chat messages and the tokenizer has no chat template. Name one in the recipe with "
                "chat_template (Jinja text or a file), or use prompts of plain text."
            )
        prompt, carried = carried_tools(prompt)
        tools, takes_tools = tools or carried, "tools" in self.chat_template
        messages: list[dict[str, Any]] = [dict(message) for message in prompt]
        if tools and not takes_tools:
            messages = [dict(message) for message in with_tools(prompt, tools)]
        for message in messages:
            calls = message.pop("tool_calls", None)
            if calls is not None and "tool_calls" in self.chat_template:
                message["tool_calls"] = json.loads(calls)
                message["content"] = message["content"].partition("<tool_call>")[0].strip()
        try:
            rendered = self.tokenizer.apply_chat_template(
                messages,
                tools=json.loads(tools) if tools and takes_tools else None,
                chat_template=self.chat_template,
                tokenize=False,
                add_generation_prompt=ask,
                eos_token=self._eos_token,
            )
        except Exception as error:  # Jinja's own errors, and whatever a template raises
            roles = ", ".join(message["role"] for message in messages)
            raise DataError(f"the chat template refuses messages of {roles}: {error}") from error
        return str(rendered)

    def _ids(self, text: str, *, special: bool) -> list[int]:
        """Tokenise; `special` puts the tokenizer's own BOS before text without it, never the EOS that some put behind.

        Raises: DataError where the text is longer than any context: to count its tokens takes minutes.
        """
        if len(text) > LONGEST_TEXT:
            raise DataError(
                f"prompt and answer have {len(text):,} characters, more than the {LONGEST_TEXT:,} that are tokenised; "
                "cut the row into several."
            )
        ids = list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        begun = ids[: len(self._opening)] == self._opening  # a prompt that was rendered beforehand
        return self._opening + ids if special and not begun else ids

    def _continuation(self, head: str, tail: str, *, special: bool) -> list[int]:
        """Tokenise `tail` as what follows `head`.

        A tokenizer may put a space before whatever it is given alone, so the two are tokenised together where the
        prompt's ids stay what they are, and otherwise behind a character that does not join with what follows.
        """
        if not tail:
            return []
        before, whole = self._ids(head, special=special), self._ids(head + tail, special=special)
        if whole[: len(before)] == before and len(whole) > len(before):
            return whole[len(before) :]
        for anchor in ("\n", "a", ".", "0"):
            alone, joined = self._ids(anchor, special=False), self._ids(anchor + tail, special=False)
            if joined[: len(alone)] == alone and len(joined) > len(alone):
                return joined[len(alone) :]
        return self._ids(tail, special=False)

    def _require_messages_written(self) -> None:
        """Refuse a chat template that leaves out what a message holds: all answers would be answers to one prompt."""
        for role, place in (("user", 0), ("assistant", 1)):
            words = [f"{PROBE} {role} {number}" for number in (1, 2)]
            chats = [[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}] for _ in words]
            for chat, word in zip(chats, words, strict=True):
                chat[place]["content"] = word
            texts = {self._render(chat[: place + 1], None, ask=place == 0) for chat in chats}
            if len(texts) == 1:
                raise ModelError(
                    f"the chat template of {self.tokenizer.name_or_path} writes the same text for different messages "
                    f"of the {role}; use the model's own template, or give chat_template."
                )


def _opening(tokenizer: Any) -> list[int]:
    """Return the ids that the tokenizer puts before any text, BOS mostly."""
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    full = list(tokenizer("a")["input_ids"])
    for start in range(len(full)):
        if full[start : start + len(bare)] == bare:
            return full[:start]
    return []


def _template_text(given: str) -> str:
    """Return Jinja text: as given, read from a file, or one of the package's own by name."""
    if "{%" in given or "{{" in given:
        return given
    for path in (Path(given).expanduser(), Path(__file__).parent / "templates" / f"{given}.jinja"):
        if path.is_file():
            try:
                return path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ModelError(f"chat_template {path} cannot be read: {error}") from error
    own = sorted(path.stem for path in (Path(__file__).parent / "templates").glob("*.jinja"))
    raise ModelError(f"chat_template {given} is neither Jinja text nor a file, nor one of {', '.join(own)}.")


def _named_template(template: Any) -> str | None:
    """Return the text of a tokenizer's template; some have several by name."""
    if isinstance(template, dict):
        template = template.get("default") or next(iter(template.values()), None)
    return template or None
