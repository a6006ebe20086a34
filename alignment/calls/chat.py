"""The interface of a chat model, and its calls with the settings of a judge."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from alignment.calls.call import CallContext, ChatReply, call_key
from alignment.calls.caller import Caller
from alignment.calls.replies import is_refusal
from alignment.config.schema.chat_models import CalledEntry
from alignment.config.schema.judges import ChatEntry
from alignment.data.rows import Message
from alignment.errors import JudgeError

T = TypeVar("T")
EMPTY_REPLY = "..."  # in place of an empty reply in the messages of a repeated question


@dataclass(frozen=True, slots=True)
class ChatCall:
    """One request to a chat model."""

    messages: list[Message]
    max_tokens: int  # of the reply
    temperature: float = 0.0
    seed: int | None = None  # of a sample
    logprobs: bool = False
    choices: tuple[str, ...] = ()  # the reply is one of these, if the backend can constrain it
    schema: dict[str, Any] | None = None  # JSON schema of the reply, if the endpoint enforces one
    as_user: bool = False  # the reply is the user's next message, which models in this process alone can write


class Chat(Protocol):
    """A chat model; several threads share one.

    The module `alignment/calls/backends/KIND.py` has `open_chat(entry, *, connect)`, which returns one; without
    `connect` it needs no server, no key and no weights, as it makes no calls.
    """

    where: str  # for messages: an address, or a path

    def request(self, call: ChatCall) -> dict[str, Any]:
        """Return everything that determines the reply, as JSON, without the API key."""
        ...

    def send(self, request: dict[str, Any]) -> ChatReply:
        """Make one attempt and return its reply or failure.

        `details["fatal"]` is the message of a failure that ends the run if it persists after all retries.

        Raises: JudgeError if every other call would fail alike.
        """
        ...


class Model:
    """A chat model with the settings of one judge."""

    def __init__(self, entry: ChatEntry, chat: Chat, caller: Caller) -> None:
        self.entry = entry
        self.chat = chat
        self.caller = caller

    def ask(
        self,
        context: CallContext,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        logprobs: bool = False,
        choices: tuple[str, ...] = (),
        schema: dict[str, Any] | None = None,
    ) -> ChatReply:
        """Return the reply to `messages`, from the store or from a new call.

        Raises: JudgeError if every other call would fail alike; BudgetError.
        """
        repeat = context.question.repeat
        sampled = repeat > 0 or self.entry.temperature > 0
        call = ChatCall(
            list(messages),
            max_tokens,
            temperature=self.entry.temperature,
            seed=self.entry.seed + repeat if sampled else None,
            logprobs=logprobs,
            choices=choices,
            schema=schema,
        )
        request = self.chat.request(call)
        reply = self.caller.call(replace(context, max_tokens=max_tokens), request, lambda: self.chat.send(request))
        if "fatal" in reply.details:
            raise JudgeError(reply.details["fatal"])
        return replace(reply, details={**reply.details, "calls": [call_key(context, request)]})

    def ask_twice(
        self,
        context: CallContext,
        question: str,
        *,
        read: Callable[[str], T | None],
        repair: str,
        max_tokens: int,
        choices: tuple[str, ...] = (),
        schema: dict[str, Any] | None = None,
    ) -> tuple[ChatReply, T | None]:
        """Send a question; if the reply cannot be parsed, send `repair` and try once more.

        Args:
            read: parses a reply; None: it cannot be parsed.

        Returns: the last reply and its parsed value, None if its status is not "ok" or it cannot be parsed. A question
            whose reply declines to answer has the status "refusal" and is not repeated.
        """
        options: dict[str, Any] = {"max_tokens": max_tokens, "logprobs": self.entry.logprobs, "choices": choices}
        messages: list[Message] = [{"role": "user", "content": question}]
        reply = self.ask(context, messages, schema=schema, **options)
        if reply.status != "ok":
            return reply, None
        found = read(reply.text)
        if found is not None or is_refusal(reply.text) or not self.entry.repair:
            return _settled(reply, found), found
        messages += [{"role": "assistant", "content": reply.raw or EMPTY_REPLY}, {"role": "user", "content": repair}]
        again = self.ask(replace(context, step="repair", calls_to_come=0), messages, schema=schema, **options)
        found = read(again.text) if again.status == "ok" else None
        calls = [*reply.details["calls"], *again.details["calls"]]
        again = replace(again, details={**again.details, "first_reply": reply.raw, "calls": calls})
        return _settled(again, found), found


def _settled(reply: ChatReply, found: Any) -> ChatReply:
    declined = found is None and reply.status == "ok" and is_refusal(reply.text)
    return replace(reply, status="refusal") if declined else reply


def build_model(entry: ChatEntry, caller: Caller) -> Model:
    """Open the backend of the entry's kind.

    Raises: JudgeError if it is not available; ModelError if a local model is not.
    """
    return Model(entry, open_backend(entry, caller), caller)


def open_backend(entry: CalledEntry, caller: Caller) -> Chat:
    """Open the backend of the entry's kind, without a connection if the caller makes no calls.

    Raises: as `build_model`.
    """
    backend = importlib.import_module(f"alignment.calls.backends.{entry.kind}")
    chat: Chat = backend.open_chat(entry, connect=not caller.makes_no_calls)
    return chat
