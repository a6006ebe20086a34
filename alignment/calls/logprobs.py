"""The log-probabilities of a reply's tokens: which tokens could have stood at a place, and how probable each was.

The form is that of `logprobs.content` in OpenAI's chat completions. Everything here comes from a server or a store, so
nothing of it is believed: a place whose numbers or texts are no log-probabilities of tokens raises `LogprobError`.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LARGEST_LOGPROB = 1e-6  # of a certain token, rounded upwards
LARGEST_TOTAL = 1.01  # of the probabilities at one place, each rounded upwards
SPACES = str.maketrans({"▁": " ", "Ġ": " ", "Ċ": "\n"})  # how SentencePiece and byte-level BPE write white space
SPECIAL = re.compile(r"\s*(<[^<>\s]{1,40}>|\[/?[A-Z]{2,12}\])?\s*")  # "<|im_end|>", "</s>", "[EOS]", or nothing at all
DECORATION = " \t\r\n*_`\"'[](){}.:!"  # may surround a letter or a number within its token


class LogprobError(ValueError):
    """What should be a log-probability of a token is none."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token that could have stood at a place."""

    text: str
    probability: float

    @property
    def word(self) -> str:
        """The text without what decorates it."""
        return self.text.strip(DECORATION)


def alternatives(token: Any) -> list[Alternative]:
    """Return the tokens that could have stood in the place of a written one, which is the first of them.

    Tokens are told apart by their place in the list, not by their text: several tokens may be spelled alike. Where
    the written token stands among `top_logprobs`, its probability is the one given there.

    Raises: LogprobError where one of them is no text with a finite log-probability of at most 0, where they add up to
        more than 1, or where nothing but the written one is told of.
    """
    found = listed(token)
    written = spelling(token)
    if "logprob" in token:
        _probability(token["logprob"])
    same = next((each for each in found if each.text == written), None)
    if same is None:
        found = [_alternative(token), *found]
        _require_shares(found)
    else:
        found = [same, *(each for each in found if each is not same)]
    return found


def listed(token: Any) -> list[Alternative]:
    """Return the tokens of `top_logprobs`.

    Raises: LogprobError as `alternatives` does.
    """
    top = token.get("top_logprobs") if isinstance(token, dict) else None
    if not isinstance(top, list) or not top:
        raise LogprobError("no other tokens are given in its place")
    found = [_alternative(each) for each in top]
    _require_shares(found)
    return found


def _require_shares(found: Sequence[Alternative]) -> None:
    total = sum(each.probability for each in found)
    if total > LARGEST_TOTAL:
        raise LogprobError(f"the probabilities add up to {total:.6g}")


def spelling(token: Any) -> str:
    """Return what a token spells, by its bytes where it has whole characters.

    Raises: LogprobError where it spells nothing, or its bytes spell another text.
    """
    text = token.get("token") if isinstance(token, dict) else None
    if not isinstance(text, str):
        raise LogprobError("a token is no text")
    text = text.translate(SPACES)
    raw = _bytes(token)
    if raw is None:
        return text
    try:
        spelled = raw.decode("utf-8").translate(SPACES)
    except UnicodeDecodeError:  # part of a character
        return text
    if spelled.strip() != text.strip():
        raise LogprobError(f"the token {text[:20]!r} has the bytes of {spelled[:20]!r}")
    return spelled


def token_index(reply: str, position: int, tokens: Sequence[Any]) -> int | None:
    """Return the place of the token that holds the reply's character at `position`; None where they do not fit.

    The tokens must spell the reply and nothing else but white space, special tokens behind it, and before it what ends
    in one: the reasoning that a server has cut off.
    """
    leading = len(reply) - len(reply.lstrip())
    offset = len(reply[leading:position].encode("utf-8", "replace"))
    target = reply.strip().encode("utf-8", "replace")
    try:
        spelled = [spelling(token) for token in tokens]
    except LogprobError:
        return None
    if not target:
        return None
    raw = [_bytes(token) or text.encode("utf-8", "replace") for token, text in zip(tokens, spelled, strict=True)]
    end = len(raw)
    while end > 0:
        start = _start(b"".join(raw[:end]), target)
        if start is not None:
            return _holding(raw, start + offset)
        if not SPECIAL.fullmatch(spelled[end - 1]):
            return None
        end -= 1
    return None


def _start(whole: bytes, target: bytes) -> int | None:
    """Return where `target` begins, at the end of `whole`."""
    whole = whole.rstrip()
    if not whole.endswith(target):
        return None
    start = len(whole) - len(target)
    before = whole[:start].rstrip()
    return start if not before.strip() or before.endswith((b">", b"[/THINK]")) else None


def _holding(pieces: Sequence[bytes], offset: int) -> int | None:
    for index, piece in enumerate(pieces):
        if offset < len(piece):
            return index
        offset -= len(piece)
    return None


def _alternative(token: Any) -> Alternative:
    text = spelling(token)
    return Alternative(text, _probability(token.get("logprob")))


def _probability(logprob: Any) -> float:
    if isinstance(logprob, bool) or not isinstance(logprob, int | float):
        raise LogprobError(f"a log-probability is {str(logprob)[:40]!r}")
    try:
        value = float(logprob)
    except OverflowError:
        raise LogprobError("a log-probability is a number that no float can hold") from None
    if not -math.inf < value <= LARGEST_LOGPROB:
        raise LogprobError(f"a log-probability is {value:g}")
    return min(1.0, math.exp(value))


def _bytes(token: Any) -> bytes | None:
    raw = token.get("bytes")
    if raw is None:
        return None
    if not isinstance(raw, list) or not all(type(byte) is int and 0 <= byte < 256 for byte in raw):
        raise LogprobError("a token's bytes are none")
    return bytes(raw)
