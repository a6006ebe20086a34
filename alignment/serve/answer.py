"""One answer while it is sampled: its tokens, its text, and what of both has been delivered."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from alignment.data.answer_stream import AnswerStream
from alignment.rollout.engine import Sampling
from alignment.rollout.sampling import generator
from alignment.serve.stop_texts import StopTexts


@dataclass(frozen=True, slots=True)
class Wanted:
    """How answers to a prompt are sampled, and what is returned of them."""

    sampling: Sampling
    is_seeded: bool = False  # tokens must not depend on other requests
    bias: Mapping[int, float] = field(default_factory=dict)  # added to the logits of tokens
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = ()
    logprobs: int | None = None  # alternatives of each token; None: no log-probabilities
    streams: bool = False  # deliver text as it is written


@dataclass(frozen=True, slots=True)
class TokenLogp:
    """A token's log-probability before temperature, penalties and bias, with the likeliest tokens in its place."""

    token: int
    logp: float | None  # None of the first token of a prompt
    top: tuple[tuple[int, float], ...]
    start: int = 0  # characters of the answer before it
    text: str | None = None  # its part of the answer's text; None: not known yet


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer."""

    choice: int
    text: str = ""
    tokens: tuple[TokenLogp, ...] = ()
    finish: str | None = None  # "stop" or "length", with the last piece
    count: int = 0  # tokens that were sampled, with the last piece
    error: Exception | None = None


def placed(tokens: Sequence[TokenLogp], parts: Sequence[str], start: int) -> list[TokenLogp]:
    """Return tokens with their parts of a text that begins at a character."""
    starts = itertools.accumulate(map(len, parts), initial=start)
    return [replace(token, start=at, text=part) for token, part, at in zip(tokens, parts, starts, strict=False)]


class Answer:
    """An answer that is being sampled.

    Args:
        choice: its number among the answers to the request. seed: and row, as of `uniforms`.
        adapter: of the base that writes it; None: the model.
        deliver: is given pieces, in the thread of the engine.
    """

    def __init__(
        self,
        choice: int,
        prompt_ids: list[int],
        wanted: Wanted,
        *,
        seed: tuple[int, int],
        tokenizer: Any,
        adapter: str | None,
        deliver: Callable[[Piece], None],
    ) -> None:
        self.choice, self.prompt_ids, self.wanted, self.adapter = choice, prompt_ids, wanted, adapter
        self.deliver = deliver
        self.ids: list[int] = []
        self.counts: dict[int, int] = {}  # of the tokens so far, if penalties need them
        self.cancelled = False
        self.random = generator(*seed)
        # what of the settings changes a draw, by which answers of a batch are grouped
        self.distribution = replace(wanted.sampling, max_new_tokens=1, stop_token_ids=(), seed=0, first_row=0)
        self._counted = bool(wanted.presence_penalty or wanted.frequency_penalty)
        self._stream = AnswerStream(tokenizer, prompt_ids)
        self._stop = StopTexts(wanted.stop)
        self._at_once = not wanted.streams and not wanted.stop and wanted.logprobs is None
        self._read = self._written = 0  # characters of the tokens so far, and of the text that is delivered
        self._waiting: list[TokenLogp] = []  # tokens whose text is not delivered
        self._unsent = ""

    def begin_at(self, start: int) -> None:
        """Count the characters of the text from `start`: an echo of the prompt has so many."""
        self._read = self._written = start

    @property
    def all_ids(self) -> list[int]:
        """The prompt and the answer so far."""
        return [*self.prompt_ids, *self.ids]

    def take(self, token: int, logp: TokenLogp | None) -> Piece | None:
        """Append a token; return what is to be delivered. The last piece has `finish`."""
        sampling = self.wanted.sampling
        self.ids.append(token)
        if self._counted:
            self.counts[token] = self.counts.get(token, 0) + 1
        ended, full = token in sampling.stop_token_ids, len(self.ids) >= sampling.max_new_tokens
        if self._at_once:
            return self._whole(ended) if ended or full else None
        text, stopped = ("", False) if ended else self._add(token, logp)
        if not (ended or full or stopped):
            if self.wanted.streams and text:
                return self._piece(text)
            self._unsent += text
            return None
        if not stopped:
            rest, stopped = self._stop.add(self._place(self._stream.end()))
            text += rest if stopped else rest + self._stop.end()
        return self._piece(self._unsent + text, finish="stop" if ended or stopped else "length", cut=stopped)

    def _whole(self, ended: bool) -> Piece:
        text = self._stream.add(self.ids[:-1] if ended else self.ids) + self._stream.end()
        return Piece(self.choice, text, finish="stop" if ended else "length", count=len(self.ids))

    def _add(self, token: int, logp: TokenLogp | None) -> tuple[str, bool]:
        if logp is not None:
            self._waiting.append(replace(logp, start=self._read))
        return self._stop.add(self._place(self._stream.add([token])))

    def _place(self, text: str) -> str:
        """Give the tokens of a text that the stream has returned their parts of it, and return it."""
        if self.wanted.logprobs is not None:
            parts = self._stream.parts()
            first = len(self._waiting) - len(parts)
            self._waiting[first:] = placed(self._waiting[first:], parts, self._read)
        self._read += len(text)
        return text

    def _piece(self, text: str, finish: str | None = None, *, cut: bool = False) -> Piece:
        """Return a piece with the tokens whose text begins in it; what is left at the end comes along."""
        self._written += len(text)
        ready = self._waiting if finish and not cut else [one for one in self._waiting if one.start < self._written]
        self._waiting = self._waiting[len(ready) :]
        return Piece(self.choice, text, tuple(ready), finish, len(self.ids) if finish else 0)
