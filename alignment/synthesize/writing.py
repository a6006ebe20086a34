"""Texts that a model writes, through the store, budget and limits of `alignment.calls`; and what became of each."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignment.calls.asking import ask_all
from alignment.calls.budget import Budget
from alignment.calls.call import CallContext, ChatReply, Writing, call_key
from alignment.calls.caller import NO_CALLS, Caller
from alignment.calls.chat import ChatCall, open_backend
from alignment.calls.replies import is_refusal
from alignment.config.schema.writers import AnyWriter
from alignment.data.rows import Message
from alignment.errors import BudgetError, JudgeError
from alignment.meter import ProgressBar

FIRST_CALLS = 20  # fewer are too few to estimate the share of failures
SHOWN_CHARACTERS = 300  # of a failure
KEPT = "What was written is kept, and the same command resumes from it."


@dataclass(frozen=True, slots=True)
class Ask:
    """One text to write."""

    step: str  # of the method
    messages: tuple[tuple[str, str], ...]  # role and content
    temperature: float
    max_tokens: int
    repeat: int = 0  # of equal messages at a temperature above 0: each is another sample
    as_user: bool = False  # the text is the user's next message

    @classmethod
    def of(cls, step: str, content: str | Sequence[Message], temperature: float, max_tokens: int, **keys: Any) -> "Ask":
        """Build one from the user's message, or from messages."""
        messages = [{"role": "user", "content": content}] if isinstance(content, str) else content
        pairs = tuple((message["role"], message["content"]) for message in messages)
        return cls(step, pairs, temperature, max_tokens, **keys)


@dataclass(frozen=True, slots=True)
class Written:
    """A text that was written, or the reason why there is none."""

    text: str  # stripped; of a reply that was cut off, the text so far
    status: str  # ok, refusal, truncated or api_error
    raw: str  # the reply, or the error
    call: str  # key of the call in the store


@dataclass
class Record:
    """Everything that was left out, with its step and reason, and the number of texts by outcome."""

    max_failure_share: float = 1.0
    dropped: list[dict[str, Any]] = field(default_factory=list)
    failed: int = 0
    asked: int = 0
    last: str = ""

    def drop(self, step: str, reason: str, text: str, **more: Any) -> None:
        """Record what a filter left out."""
        self.dropped.append({"step": step, "reason": reason, "text": text, **more})

    def fail(self, step: str, written: Written, reason: str | None = None, **more: Any) -> None:
        """Record a reply that gave nothing: no text, a refusal, or none that can be parsed."""
        reason = reason or written.status
        self.failed += 1
        self.last = f"{reason}: {written.raw[:SHOWN_CHARACTERS] or 'an empty reply'}"
        self.drop(step, reason, written.raw, call=written.call, **more)

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many were left out, by step and reason."""
        found: dict[str, Counter[str]] = {}
        for row in self.dropped:
            found.setdefault(row["step"], Counter())[row["reason"]] += 1
        return {step: dict(reasons.most_common()) for step, reasons in found.items()}

    def check(self, writer: str, *, at_end: bool = False) -> None:
        """Raise JudgeError if more than the recipe's share of the replies gave nothing."""
        if self.failed > self.max_failure_share * self.asked and (self.asked >= FIRST_CALLS or at_end):
            raise JudgeError(
                f"writer {writer}: {self.failed} of {self.asked} replies gave nothing; max_failure_share is "
                f"{self.max_failure_share:g}. No rows were written. {KEPT} Last failure: {self.last}"
            )


class NoBar:
    """A progress bar that shows nothing."""

    def advance(self, count: int) -> None:
        """Show nothing."""

    def __enter__(self) -> "NoBar":
        return self

    def __exit__(self, *_: object) -> None:
        return None


Bar = ProgressBar | NoBar


class Writer:
    """Writes texts; equal texts are asked for once, and stored replies are not asked for again."""

    def __init__(self, entry: AnyWriter, caller: Caller, *, seed: int, prompt_hash: str) -> None:
        """Open the backend.

        Raises: JudgeError if the endpoint or its key is not available; ModelError if a local model is not.
        """
        self.entry, self.caller, self.seed, self.prompt_hash = entry, caller, seed, prompt_hash
        self.chat = open_backend(entry, caller)
        self.name = entry.label

    def ask(self, ask: Ask, /) -> Written:
        """Write one text.

        Raises: JudgeError if the endpoint is down or refuses every call; BudgetError.
        """
        messages: list[Message] = [{"role": role, "content": content} for role, content in ask.messages]
        call = ChatCall(
            messages,
            ask.max_tokens,
            temperature=ask.temperature,
            seed=(self.seed + ask.repeat) % 2**31 if ask.temperature > 0 else None,
            as_user=ask.as_user,
        )
        request = self.chat.request(call)
        writing = Writing(messages, ask.repeat)
        context = CallContext(self.name, self.prompt_hash, writing, "writing", max_tokens=ask.max_tokens)
        reply = self.caller.call(context, request, lambda: self.chat.send(request))
        if "fatal" in reply.details or reply.transient:
            raise JudgeError(
                f"writer {self.name}: a call failed {self.caller.max_retries + 1} times "
                f"({reply.raw[:SHOWN_CHARACTERS]}). No rows were written. {KEPT}"
            )
        return _written(reply, call_key(context, request))

    def bar(self, doing: str, unit: str, total: int) -> Bar:
        """Return a progress bar that also shows the money spent."""
        budget = self.caller.budget
        note = budget.summary if isinstance(budget, Budget) else str
        return ProgressBar(f"synthesize: {doing}", unit, total, note=note)

    def write(self, asks: Sequence[Ask], record: Record, *, max_concurrency: int, doing: str = "") -> list[Written]:
        """Write several texts at a time; return them in the order of `asks`.

        Args:
            doing: what the progress bar names; "": there is none.

        Raises: JudgeError and BudgetError as `ask`; the replies until then are kept.
        """
        found: dict[Ask, Written] = {}
        different = list(dict.fromkeys(asks))
        bar = self.bar(doing, "texts", len(different)) if doing else NoBar()
        try:
            with bar as progress:
                for batch in ask_all(self, different, max_concurrency=max_concurrency):
                    found.update(batch)
                    progress.advance(len(batch))
        except BudgetError as error:
            raise BudgetError(f"{error} No rows were written. {KEPT[:-1]} with a higher budget.") from None
        record.asked += len(asks)
        return [found[ask] for ask in asks]


class DryWriter(Writer):
    """Makes no call; texts that are not stored are imagined, so that a method goes on to its next step."""

    def __init__(self, *args: Any, imagine: Callable[[Ask, int, Any], str], method: Any, **keys: Any) -> None:
        super().__init__(*args, **keys)
        self.imagine, self.method = imagine, method
        self.imagined = 0

    def bar(self, doing: str, unit: str, total: int) -> Bar:
        """Return a bar that shows nothing."""
        return NoBar()

    def write(self, asks: Sequence[Ask], record: Record, **_: Any) -> list[Written]:
        """Imagine the texts one by one."""
        record.asked += len(asks)
        return [self.ask(ask) for ask in asks]

    def ask(self, ask: Ask, /) -> Written:
        """Return the stored text, or an imagined one."""
        written = super().ask(ask)
        if written.raw != NO_CALLS:
            return written
        self.imagined += 1
        return Written(self.imagine(ask, self.imagined, self.method), "ok", "", written.call)


def _written(reply: ChatReply, key: str) -> Written:
    text = reply.text.strip()
    status: str = "empty" if reply.status == "ok" and not text else reply.status
    return Written(text, status, reply.raw, key)


def declines(written: Written) -> bool:
    """Whether a text declines to write what it was asked for."""
    return is_refusal(written.text)


def hash_of(*texts: str) -> str:
    """Return the hash of the prompts of a method."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]
