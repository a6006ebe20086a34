"""The text of an answer while its tokens arrive."""

import itertools
import operator
from collections.abc import Sequence
from typing import Any

CONTEXT = 64  # tokens of the prompt before an answer that are decoded with its first
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
MOST_HELD = 16  # tokens; a character has at most four bytes, and text that stays invalid must not be held for ever


class AnswerStream:
    """Turns tokens into the text that they add behind a prompt; special tokens have none.

    Args:
        tokenizer: a transformers tokenizer. prompt_ids: what the answer continues.
    """

    def __init__(self, tokenizer: Any, prompt_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        before = list(prompt_ids[-CONTEXT:])
        if len(prompt_ids) > CONTEXT and not self._decoded(before):
            before = list(prompt_ids)
        self._written, self._held = before, list[int]()
        self._released: tuple[list[int], list[int], str] = ([], [], "")  # tokens before, tokens, and their text

    def add(self, ids: Sequence[int]) -> str:
        """Return the text that these tokens complete; a token may end inside a character."""
        self._held += ids
        text = self._new()
        if text.endswith(INCOMPLETE) and len(self._held) <= MOST_HELD:
            self._released = ([], [], "")
            return ""
        self._take(text)
        return text

    def parts(self) -> list[str]:
        """Return the parts of the text that was returned last, one for each token that it was held for.

        A character of several tokens is the part of the last of them; the others have none.
        """
        written, ids, text = self._released
        if len(ids) < 2:
            return [text] * len(ids)
        before, ends = self._decoded(written), [0]
        for count in range(1, len(ids)):
            after = self._decoded([*written, *ids[:count]])
            part = after[len(before) :] if after.startswith(before) else self._decoded(ids[:count])
            ends.append(max(ends[-1], sum(itertools.takewhile(bool, map(operator.eq, part, text)))))
        return [text[start:end] for start, end in zip(ends, [*ends[1:], len(text)], strict=True)]

    def end(self) -> str:
        """Return the text of what is still held."""
        text = self._new() if self._held else ""
        self._take(text)
        return text

    def _new(self) -> str:
        """Return the text of the held tokens, with the space that decoding them alone may drop."""
        before, after = self._decoded(self._written), self._decoded([*self._written, *self._held])
        return after[len(before) :] if after.startswith(before) else self._decoded(self._held)

    def _take(self, text: str) -> None:
        self._released = (self._written, self._held, text)
        if text:  # special tokens alone do not show whether a space follows
            self._written, self._held = self._held, []
        elif self._held:
            self._written, self._held = [*self._written, *self._held], []

    def _decoded(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))
