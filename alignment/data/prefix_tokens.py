"""Tokenising texts that begin alike, as the contexts of a conversation's answers do: the beginning is tokenised once.

A tokenizer of the library `tokenizers` divides a text at those added tokens that are not normalised, leftmost first and
the longest of them, and then tokenises each part by itself. So where such a token stands at character c, the ids of
`text` are those of `text[:c]` followed by those of `text[c:]`.
"""

import bisect
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Encode = Callable[[str, Mapping[str, str]], list[int]]
_AROUND = (("a", "b"), ("a ", " b"), ("\n", "\n\n"), ("é<", "\u0301>"), ("▁.", "▁1"), ("中", " 中"))  # to try a token


class _Cut(NamedTuple):
    """A place where a text can be divided."""

    begin: int  # character
    shared: int  # a text that has the same first characters can be divided there too
    tokens: int  # before


class _Known(NamedTuple):
    text: str
    hidden: Mapping[str, str]
    ids: list[int]
    cuts: list[_Cut]


class PrefixTokens:
    """Tokenises texts, and remembers the last one for the next that begins alike."""

    def __init__(self, tokenizer: Any, encode: Encode) -> None:
        """`encode` returns the ids of a text with stand-ins, as `ControlTokens` does."""
        self._encode = encode
        divides = tokenizer.is_fast and not tokenizer.split_special_tokens
        added = [token for token in tokenizer.added_tokens_decoder.items() if divides and not token[1].normalized]
        self._added = {token.content: token_id for token_id, token in added}
        self._ids = frozenset(self._added.values())
        self._pattern = re.compile("|".join(map(re.escape, sorted(self._added, key=len, reverse=True))))
        bare = [token for _, token in added if not (token.lstrip or token.rstrip or token.single_word)]
        self._bare = frozenset(token.content for token in bare)
        self._reaches: dict[str, int] = {}
        self._known = _Known("", {}, [], [])  # replaced as a whole, because threads may share it

    def ids(self, text: str, hidden: Mapping[str, str]) -> list[int]:
        """Return what `encode` returns of a text and its stand-ins."""
        if not self._bare:
            return self._encode(text, hidden)
        known = self._known
        cuts = known.cuts if known.hidden == hidden else []
        usable = bisect.bisect_left(cuts, True, key=lambda cut: text[: cut.shared] != known.text[: cut.shared])
        last = cuts[usable - 1] if usable else _Cut(0, 0, 0)
        rest = text[last.begin :]
        found = self._encode(rest, hidden)
        ids = known.ids[: last.tokens] + found
        more = [
            _Cut(last.begin + begin, last.begin + shared, last.tokens + tokens)
            for begin, shared, tokens in self._cuts(rest, found)
        ]
        self._known = _Known(text, dict(hidden), ids, cuts[: usable - 1] + more if usable else more)
        return list(ids)

    def _cuts(self, text: str, ids: list[int]) -> list[_Cut]:
        """Return where a text can be divided; nowhere if its ids hold other added tokens than its characters."""
        tokens = list(self._pattern.finditer(text))
        places = [place for place, token_id in enumerate(ids) if token_id in self._ids]
        if [ids[place] for place in places] != [self._added[token[0]] for token in tokens]:
            return []
        pairs = zip(tokens, places, strict=True)
        cuts = [_Cut(token.start(), token.start() + self._reach(token[0]), place) for token, place in pairs]
        return [cut for cut in cuts if cut.shared > cut.begin]

    def _reach(self, token: str) -> int:
        """Return how many characters from a token's first decide that it stands there; 0 if it divides no text."""
        if token not in self._reaches:
            places = re.compile(f"(?={re.escape(token)})")
            reach = max(len(other) - place.start() for other in self._added for place in places.finditer(other))
            self._reaches[token] = reach if token in self._bare and self._divides(token) else 0
        return self._reaches[token]

    def _divides(self, token: str) -> bool:
        """Try whether a token divides texts, which a class of tokenizers might do in another way."""
        return all(
            self._encode(before + token + after, {}) == self._encode(before, {}) + self._encode(token + after, {})
            for before, after in _AROUND
        )
