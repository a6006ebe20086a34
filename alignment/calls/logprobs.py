"""The log-probabilities of a reply's tokens: the alternatives at each position and their probabilities.

The format is that of `logprobs.content` in OpenAI's chat completions. The values come from a server or a store, so each
is checked: a position with an invalid text or log-probability raises `LogprobError`.
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
    """A log-probability, or the text of a token, is not valid."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token that the model could have written at a position."""

    text: str
    probability: float

    @property
    def word(self) -> str:
        """The text without white space, punctuation and marks around it."""
        return self.text.strip(DECORATION)


def alternatives(token: Any) -> list[Alternative]:
    """Return the alternatives at a token's position, the written token first.

    Tokens are distinguished by their position in the list, because several may have the same text. If the written token
    is among `top_logprobs`, its probability is the one given there.

    Raises: LogprobError if one of them has no text with a finite log-probability of at most 0, their probabilities sum
        to more than 1, or there are no alternatives.
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
        raise LogprobError("there are no alternatives at its position")
    found = [_alternative(each) for each in top]
    _require_shares(found)
    return found


def _require_shares(found: Sequence[Alternative]) -> None:
    total = sum(each.probability for each in found)
    if total > LARGEST_TOTAL:
        raise LogprobError(f"the probabilities sum to {total:.6g}")


def spelling(token: Any) -> str:
    """Return the text of a token, decoded from its bytes if they are whole characters.

    Raises: LogprobError if it has no text, or its bytes have another text.
    """
    text = token.get("token") if isinstance(token, dict) else None
    if not isinstance(text, str):
        raise LogprobError("a token has no text")
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
    """Return the index of the token with the reply's character at `position`; None if tokens and reply do not match.

    The tokens must spell the reply. Around it they may have white space, after it special tokens, and before it text
    that ends in a special token: reasoning that the server removed from the reply.
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
    """Return the index of `target` at the end of `whole`; None if it is not there."""
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
        raise LogprobError("a log-probability is too large for a float") from None
    if not -math.inf < value <= LARGEST_LOGPROB:
        raise LogprobError(f"a log-probability is {value:g}")
    return min(1.0, math.exp(value))


def _bytes(token: Any) -> bytes | None:
    raw = token.get("bytes")
    if raw is None:
        return None
    if not isinstance(raw, list) or not all(type(byte) is int and 0 <= byte < 256 for byte in raw):
        raise LogprobError("a token's bytes are not valid")
    return bytes(raw)
