"""Builds the JSON of answers: whole, and in chunks."""

import json
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignment.data.answers import message_of_answer
from alignment.data.fields import BadRow
from alignment.serve.answer import Piece, TokenLogp
from alignment.serve.stop_texts import StopTexts
from alignment.serve.token_texts import TokenTexts

CALL = "<tool_call>"  # with which a call begins in an answer's text


@dataclass
class Whole:
    """An answer that is put together from its pieces."""

    text: str = ""
    tokens: list[TokenLogp] = field(default_factory=list)
    finish: str | None = None
    count: int = 0

    def add(self, piece: Piece) -> None:
        """Append a piece."""
        self.text += piece.text
        self.tokens += piece.tokens
        self.finish, self.count = piece.finish, piece.count


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Return the counts of tokens."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


class Form:
    """What all replies to one request have in common.

    Args:
        kind: the prefix of the id, and the object's name. texts: of the model's tokens.
        logprobs: alternatives of each token; None: no log-probabilities.
    """

    prefix: str
    whole: str
    chunk: str

    def __init__(self, model: str, texts: TokenTexts, logprobs: int | None) -> None:
        self.texts, self.logprobs = texts, logprobs
        self.head = {"id": f"{self.prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}

    def response(self, answers: Sequence[Whole], prompt_tokens: int) -> dict[str, Any]:
        """Return the response with all answers."""
        choices = [self.choice(number, answer) for number, answer in enumerate(answers)]
        counts = usage(prompt_tokens, sum(answer.count for answer in answers))
        return {**self.head, "object": self.whole, "choices": choices, "usage": counts}

    def event(self, choices: list[dict[str, Any]], more: dict[str, Any]) -> bytes:
        """Return an event of a stream."""
        body = {**self.head, "object": self.chunk, "choices": choices, **more}
        return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"

    def choice(self, number: int, answer: Whole) -> dict[str, Any]:
        """Return an answer as a choice."""
        raise NotImplementedError

    def opening(self, number: int) -> list[dict[str, Any]]:
        """Return the choices of the chunk with which an answer begins; [] if there is none."""
        raise NotImplementedError

    def parts(self, piece: Piece) -> Iterable[dict[str, Any]]:
        """Return a piece as choices of chunks."""
        raise NotImplementedError


class ChatForm(Form):
    """Chat completions. Calls of tools in an answer's text become `tool_calls` if the request has tools."""

    prefix, whole, chunk = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def __init__(self, model: str, texts: TokenTexts, logprobs: int | None, *, calls: bool) -> None:
        super().__init__(model, texts, logprobs)
        self.calls = calls
        self._before: dict[int, StopTexts] = {}  # of each answer, the text before its first call
        self._rest: dict[int, str] = {}  # the text from its first call on

    def choice(self, number: int, answer: Whole) -> dict[str, Any]:
        """Return an answer as a choice."""
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
        text, calls = called(answer.text) if self.calls else (answer.text, [])
        if calls:
            message |= {"content": text or None, "tool_calls": calls}
        finish = "tool_calls" if calls and answer.finish == "stop" else answer.finish
        logprobs = self._logprobs(answer.tokens)
        return {"index": number, "message": message, "logprobs": logprobs, "finish_reason": finish}

    def opening(self, number: int) -> list[dict[str, Any]]:
        """Return the choice with the role."""
        return [_delta(number, {"role": "assistant", "content": ""})]

    def parts(self, piece: Piece) -> Iterable[dict[str, Any]]:
        """Yield the text, then, at the end, the calls and the reason of the end."""
        text = self._without_calls(piece) if self.calls else piece.text
        if text or piece.tokens:
            yield _delta(piece.choice, {"content": text}, self._logprobs(piece.tokens))
        if piece.finish is None:
            return
        finish = piece.finish
        if piece.choice in self._rest:
            rest = self._rest.pop(piece.choice)
            text, calls = called(rest)
            if calls:
                finish = "tool_calls" if finish == "stop" else finish
                yield _delta(
                    piece.choice, {"tool_calls": [{"index": place, **call} for place, call in enumerate(calls)]}
                )
            else:
                yield _delta(piece.choice, {"content": rest})
        yield {**_delta(piece.choice, {}), "finish_reason": finish}

    def _without_calls(self, piece: Piece) -> str:
        """Return the text of a piece before the first call; the rest is kept until the answer is whole."""
        if piece.choice in self._rest:
            self._rest[piece.choice] += piece.text
            return ""
        before = self._before.setdefault(piece.choice, StopTexts([CALL]))
        held = before.held + piece.text
        text, found = before.add(piece.text)
        if found:
            self._rest[piece.choice] = held[len(text) :]
            return text
        return text + before.end() if piece.finish else text

    def _logprobs(self, tokens: Sequence[TokenLogp]) -> dict[str, Any] | None:
        if self.logprobs is None:
            return None
        return {"content": [self._token(token) for token in tokens], "refusal": None}

    def _token(self, one: TokenLogp) -> dict[str, Any]:
        top = [self._entry(token, logp) for token, logp in one.top[: self.logprobs]]
        text, raw = self.texts.within(one.token, one.text)
        return {"token": text, "logprob": _finite(one.logp), "bytes": raw, "top_logprobs": top}

    def _entry(self, token: int, logp: float | None) -> dict[str, Any]:
        text, raw = self.texts(token)
        return {"token": text, "logprob": _finite(logp), "bytes": raw}


class TextForm(Form):
    """Completions of texts."""

    prefix, whole, chunk = "cmpl", "text_completion", "text_completion"

    def choice(self, number: int, answer: Whole) -> dict[str, Any]:
        """Return an answer as a choice."""
        logprobs = self._logprobs(answer.tokens)
        return {"index": number, "text": answer.text, "logprobs": logprobs, "finish_reason": answer.finish}

    def opening(self, number: int) -> list[dict[str, Any]]:
        """Return nothing: text has no role."""
        return []

    def parts(self, piece: Piece) -> Iterable[dict[str, Any]]:
        """Return the piece as one choice."""
        part = Whole(piece.text, list(piece.tokens), piece.finish)
        return [self.choice(piece.choice, part)] if piece.text or piece.tokens or piece.finish else []

    def _logprobs(self, tokens: Sequence[TokenLogp]) -> dict[str, Any] | None:
        if self.logprobs is None:
            return None
        return {
            "tokens": [self.texts.within(one.token, one.text)[0] for one in tokens],
            "token_logprobs": [_finite(one.logp) for one in tokens],
            "top_logprobs": [self._top(one) for one in tokens] if self.logprobs else None,
            "text_offset": [one.start for one in tokens],
        }

    def _top(self, one: TokenLogp) -> dict[str, float | None] | None:
        if one.logp is None:
            return None
        found: dict[str, float | None] = {}
        for token, logp in one.top[: self.logprobs]:
            found.setdefault(self.texts(token)[0], _finite(logp))  # several tokens may have one text
        return found


def called(text: str) -> tuple[str, list[dict[str, Any]]]:
    """Return the text before the calls in an answer, and the calls in OpenAI's form."""
    before = text.partition(CALL)[0].strip()
    try:
        written = message_of_answer(text).get("tool_calls") if CALL in text else None
    except BadRow:
        written = None
    if written is None:
        return text, []
    return before, [
        {
            "id": f"call_{secrets.token_hex(12)}",
            "type": "function",
            "function": {
                "name": call["function"]["name"],
                "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
            },
        }
        for call in json.loads(written)
    ]


def _finite(logp: float | None) -> float | None:
    """Return a log-probability as JSON can write it: OpenAI writes -9999 for a token that cannot be drawn."""
    return None if logp is None else max(logp, -9999.0)


def _delta(number: int, delta: dict[str, Any], logprobs: Any = None) -> dict[str, Any]:
    return {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": None}
