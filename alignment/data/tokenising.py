"""Rendered text to token ids: a text, what continues another, and the tokens of some of its characters."""

from collections.abc import Mapping, Sequence
from typing import Any

from alignment.data.control import ControlTokens
from alignment.data.masks import Span
from alignment.data.prefix_tokens import PrefixTokens
from alignment.errors import DataError

LONGEST_TEXT = 2**21  # characters of one prompt with its answer, some 500,000 tokens


class TextTooLong(DataError):
    """A text is longer than any context."""

    def __init__(self, characters: int) -> None:
        super().__init__(
            f"prompt and answer have {characters:,} characters, more than the {LONGEST_TEXT:,} that are tokenised; "
            "cut the row into several."
        )
        self.characters = characters


class TextTokens:
    """How one tokenizer splits texts, with stand-ins for control tokens that a message spells."""

    def __init__(self, tokenizer: Any, control: ControlTokens) -> None:
        """`control` tokenises the stand-ins, which rendered messages hold."""
        self._tokenizer = tokenizer
        self._prefixes = PrefixTokens(tokenizer, control.ids)
        self._opening = around(tokenizer)[0]

    def ids(self, text: str, *, special: bool, hidden: Mapping[str, str] | None = None) -> list[int]:
        """Tokenise; `special` puts the tokenizer's own BOS before text without it, never the EOS that some put behind.

        Raises: TextTooLong: to count the tokens of a longer text takes minutes.
        """
        if len(text) > LONGEST_TEXT:
            raise TextTooLong(len(text))
        if not special:
            return self._prefixes.ids(text, hidden or {})
        ids = list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        begun = ids[: len(self._opening)] == self._opening  # a prompt that was rendered beforehand
        return ids if begun else self._opening + ids

    def continuation(
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
        before = self.ids(head, special=special, hidden=hidden) if before is None else before
        whole = self.ids(head + tail, special=special, hidden=hidden)
        if whole[: len(before)] == before and len(whole) > len(before):
            return whole[len(before) :]
        for anchor in ("\n", "a", ".", "0"):
            alone = self.ids(anchor, special=False)
            joined = self.ids(anchor + tail, special=False, hidden=hidden)
            if joined[: len(alone)] == alone and len(joined) > len(alone):
                return joined[len(alone) :]
        return self.ids(tail, special=False, hidden=hidden)

    def inside(self, context: str, tail: str, spans: Sequence[Span], hidden: Mapping[str, str]) -> set[int]:
        """Return the places, in the answer, of the tokens within characters of `tail`."""
        places: set[int] = set()
        for begin, end in spans:
            low, high = (
                len(self.continuation(context, tail[:to], special=False, hidden=hidden)) for to in (begin, end)
            )
            places |= set(range(low, high))
        return places

    def has_text(self, ids: list[int]) -> bool:
        """Whether ids hold more than white space and special tokens."""
        return bool(ids) and bool(self._tokenizer.decode(ids, skip_special_tokens=True).strip())


def around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer puts before any text, BOS mostly, and those that it puts behind it."""
    bare = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    full = list(tokenizer("a")["input_ids"])
    for start in range(len(full)):
        if full[start : start + len(bare)] == bare:
            return full[:start], full[start + len(bare) :]
    return [], []
