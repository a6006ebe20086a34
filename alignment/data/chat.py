"""A conversation as a chat template reads it, and the text that the template writes."""

import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from transformers.utils.chat_template_utils import render_jinja_template

from alignment.data.answers import TAGGED, THOUGHTS, in_text, is_empty
from alignment.data.call_forms import as_text, takes_text, wants_wrapper, wrapped
from alignment.data.control import ControlTokens
from alignment.data.conversations import REASONING, with_tools
from alignment.data.results import unwrapped
from alignment.data.rows import Message
from alignment.data.stops import PROBE
from alignment.data.unwritten import NameUnwritten, TemplateError
from alignment.errors import DataError, first_line
from alignment.strict_json import shown

EMPTY = "an answer is empty but for the stop token {!r}; leave it out, or give it words"
CONTROL_ALONE = "an answer has no words, only control tokens: {}; leave it out, or give it words"
_MARKS = " <a & \"b\">\n'c'"  # that a template may escape, or fold into one line
_GENERATION = re.compile(r"\{%-?\+?\s*generation\s*[-+]?%\}")


@dataclass(slots=True)
class Chat:
    """Messages as a template reads them; text that spells a control token is hidden behind stand-ins."""

    messages: list[dict[str, Any]]
    tools: list[Any] | None
    added: int = 0  # messages that stand before the data's own
    hidden: dict[str, str] = field(default_factory=dict)  # stand-in → text


class ChatWriter:
    """Writes conversations with one tokenizer's chat template."""

    def __init__(self, tokenizer: Any, chat_template: str, eos_token: str, control: ControlTokens) -> None:
        """`chat_template` is Jinja text; `eos_token` is the template's variable."""
        self.template, self.control = chat_template, control
        self.stop_texts: tuple[str, ...] = ()  # with which an answer may end already
        self.name = tokenizer.name_or_path
        self._variables = {**tokenizer.special_tokens_map, "eos_token": eos_token}
        self.takes_tools = "tools" in chat_template
        self._takes_calls = "tool_calls" in chat_template
        self._reasoning = [name for name in REASONING if re.search(rf"\b{name}\b", chat_template)]
        self.thought = next((tags for tags in THOUGHTS if tags[1] in chat_template), None)
        self._written: set[tuple[Any, ...]] = set()  # shapes of conversations that the template writes whole
        self.marks_answers = bool(_GENERATION.search(chat_template))

    @functools.cached_property
    def _text_arguments(self) -> bool:
        return takes_text(lambda messages: self.render(Chat(messages, None), ask=False))

    @functools.cached_property
    def _wrapped_tools(self) -> bool:
        question = [{"role": "user", "content": "Hi"}]
        return wants_wrapper(lambda tools: self.render(Chat(question, tools), ask=True))

    def use_stops(self, tokens: Sequence[str]) -> None:
        """Take the spelling of stop tokens off the ends of answers, where the template writes one."""
        self.stop_texts = tuple(token for token in tokens if token in self.control.texts)

    def prepare(self, messages: Sequence[Message], tools: str | None) -> Chat:
        """Convert messages and the JSON of tools to the form that the template reads.

        Raises: DataError where a message has reasoning, and the template has no place for it, or leaves out a message.
        """
        given = list(messages)
        chat = Chat([], None)
        if tools and self.takes_tools:
            found = json.loads(tools)
            chat.tools = self.control.hide(wrapped(found) if self._wrapped_tools else found, chat.hidden)
        elif tools:
            before = len(given)
            given = with_tools(given, tools)
            chat.added = len(given) - before
        chat.messages = [self._message(message, chat) for message in given]
        self._require_all_written(chat)
        return chat

    def _message(self, message: Message, chat: Chat) -> dict[str, Any]:
        own = message["role"] == "assistant"
        written: dict[str, Any] = dict(message)
        calls, reasoning = written.pop("tool_calls", None), written.pop("reasoning", None)
        if calls is not None and self._takes_calls:
            written["content"] = written["content"].partition("<tool_call>")[0].strip()
        if own:
            written["content"] = without_stops(written["content"], self.stop_texts)
            if is_empty(written["content"]) and not is_empty(message["content"]) and calls is None:
                raise DataError(EMPTY.format(message["content"]))
        if written.pop(TAGGED, None) and reasoning and not self._reasoning:
            written["content"], reasoning = in_text(reasoning, written["content"]), None
        if reasoning and self.thought:
            written["content"] = without_repeated(reasoning, written["content"], self.thought)
        if reasoning and self._reasoning:
            written |= dict.fromkeys(self._reasoning, reasoning)
        elif reasoning and self.thought:
            written["content"] = in_tags(reasoning, written["content"], self.thought)
        elif reasoning:
            raise TemplateError(
                "a message of the assistant has reasoning in a field of its own, and the chat template writes no "
                "reasoning",
                "; put it into the content in the model's own tags, leave the field out with ignore_columns, or set "
                "chat_template to one that writes it",
            )
        result = written["content"] if message["role"] == "tool" else None
        written = self.control.hide(written, chat.hidden, own=own)
        if result is not None:
            hide = functools.partial(self.control.hide, hidden=chat.hidden)
            written["content"] = unwrapped(result, self.template, hide)
        if calls is not None and self._takes_calls:
            found = json.loads(calls)
            written["tool_calls"] = self.control.hide(as_text(found) if self._text_arguments else found, chat.hidden)
        return written

    def render(self, chat: Chat, end: int | None = None, *, ask: bool) -> str:
        """Render the first `end` of the data's messages; `ask` adds the generation prompt.

        Raises: DataError where the template refuses them.
        """
        return self._render(chat, end, ask=ask, marks=False)[0]

    def render_marked(self, chat: Chat, end: int) -> tuple[str, list[tuple[int, int]]]:
        """Render without a generation prompt; return the characters inside `{% generation %}` too, begin and end."""
        return self._render(chat, end, ask=False, marks=self.marks_answers)

    def _require_all_written(self, chat: Chat) -> None:
        """Refuse a conversation of which the template leaves out a message that is not the assistant's.

        Conversations of one shape are tried once. Answers are looked at where they are trained.

        Raises: DataError.
        """
        shape = tuple((m["role"], bool(m["content"].strip()), *sorted(m.keys() - {"content"})) for m in chat.messages)
        if shape in self._written:
            return
        words = [
            f"{PROBE} {m['role']} {place}.{_MARKS}" if m["content"].strip() else ""
            for place, m in enumerate(chat.messages)
        ]
        tried = [{**message, "content": word} for message, word in zip(chat.messages, words, strict=True)]
        own = bool(tried) and tried[-1]["role"] == "assistant"
        text = self.render(replace(chat, messages=tried), ask=not own)
        others = [place for place, message in enumerate(tried) if message["role"] != "assistant"]
        left = next((place for place in others if words[place].removesuffix(_MARKS) not in text), None)
        if left is not None:
            role = tried[left]["role"]
            remedy = "put its text into the first message of the user, or set" if role == "system" else "set"
            raise TemplateError(
                f"the chat template leaves out message {left + 1 - chat.added}, of the {role}",
                f", so answers would be trained without it; {remedy} chat_template to one that writes it",
            )
        changed = next((p for p in others if tried[p]["role"] != "tool" and words[p] not in text), None)
        if changed is not None:
            raise TemplateError(
                f"the chat template changes the text of message {changed + 1 - chat.added}, of the "
                f"{tried[changed]['role']}: it escapes <, & or quotes, or replaces line breaks",
                "; set chat_template to one that writes messages as they are",
            )
        self._require_names_written(tried, chat.tools, text, ask=not own)
        self._written.add(shape)

    def _require_names_written(self, tried: list[dict[str, Any]], tools: Any, text: str, *, ask: bool) -> None:
        """Refuse names of speakers that the template leaves out; a tool's name is in the call already.

        Raises: NameUnwritten.
        """
        for place, message in enumerate(tried):
            if message["role"] == "tool" or not message.get("name"):
                continue
            other = [*tried[:place], {**message, "name": f"{message['name']} {PROBE}"}, *tried[place + 1 :]]
            if self.render(Chat(other, tools), ask=ask) == text:
                raise NameUnwritten(message["role"], shown(message["name"]))

    def _render(self, chat: Chat, end: int | None, *, ask: bool, marks: bool) -> tuple[str, list[tuple[int, int]]]:
        messages = chat.messages[: None if end is None else chat.added + end]
        try:
            texts, spans = render_jinja_template(
                [messages],
                tools=chat.tools,
                chat_template=self.template,
                return_assistant_tokens_mask=marks,
                add_generation_prompt=ask,
                **self._variables,
            )
        except Exception as error:  # Jinja's own errors, and whatever a template raises
            raise _refusal(messages, error, told=bool(chat.added)) from error
        return str(texts[0]), [(int(begin), int(stop)) for begin, stop in spans[0]] if marks else []


def _refusal(messages: Sequence[dict[str, Any]], error: Exception, *, told: bool) -> TemplateError:
    """Return the error for messages that a template refuses; `told`: one of them lists the tools."""
    roles = ", ".join(str(message["role"]) for message in messages) or "no message before an answer"
    fault, remedy = f"the chat template refuses messages of {roles}: {first_line(error)}", ""
    if told:
        fault += ". It has no place for tools, so a system message lists them"
        remedy = "; set chat_template to one that takes tools"
    elif any(message["role"] == "system" for message in messages):
        fault += ". If it takes no system message, put that text into the first user message"
        remedy = ", or set chat_template to one that takes it"
    return TemplateError(fault, remedy)


def without_repeated(reasoning: str, content: str, tags: tuple[str, str]) -> str:
    """Return a content without the thought that it begins with, where that is the reasoning of the message's field.

    Raises: DataError where it holds another thought.
    """
    if tags[0] not in content and tags[1] not in content:
        return content
    before, _, rest = content.partition(tags[1])
    if before.replace(tags[0], "", 1).strip() != reasoning.strip() or tags[0] in rest or tags[1] in rest:
        raise DataError(
            f"a message of the assistant has reasoning in a field of its own, and {tags[0]} or {tags[1]} with other "
            "text in its content; keep one of the two"
        )
    return rest.lstrip("\n")


def in_tags(reasoning: str, content: str, tags: tuple[str, str]) -> str:
    """Return a content that begins with its reasoning between tags."""
    return "{}\n{}\n{}\n\n{}".format(tags[0], reasoning.strip("\n"), tags[1], content.lstrip("\n"))


def without_stops(content: str, stops: Sequence[str]) -> str:
    """Return a content without the stop tokens that it ends with; the template writes one."""
    while stop := next((stop for stop in stops if content.rstrip().endswith(stop)), None):
        content = content.rstrip().removesuffix(stop)
    return content
