"""Rows of text as token ids, without the tokens that a tokenizer puts around a text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignment.data.answer_tokens import AnswerTokens
from alignment.data.masks import Answer
from alignment.data.rows import Demonstration
from alignment.data.template import Template
from alignment.data.tokenising import LONGEST_TEXT, around
from alignment.errors import DataError

CONTEXT = 8  # tokens before one by which its bytes are found


@dataclass(frozen=True, slots=True)
class Document:
    """One text, or one prompt with its answer."""

    ids: list[int]  # without special tokens around it; of a pair, all that the encoder reads
    size: int  # bytes of its text in UTF-8
    answer: list[int] | None = None  # of a pair, all that the decoder writes
    words: list[int] | None = None  # of each of `ids`: the number of its word


class Documents:
    """Tokenises rows for one tokenizer and template.

    Text is tokenised as it is. Other rows are rendered as fine-tuning renders them, and all their tokens are learned.
    """

    def __init__(self, template: Template, *, pairs: bool = False, words: bool = False) -> None:
        """`pairs`: keep a prompt and its answer apart. `words`: note the word of each token, by a fast tokenizer."""
        self.template, self.tokenizer, self.pairs, self.words = template, template.tokenizer, pairs, words
        self.opening, self.closing = ends_of(template)
        self._tokens = AnswerTokens(template)

    def read(self, row: Demonstration) -> list[Document]:
        """Return the documents of a row: several where the chat template rewrites earlier turns, or pairs have turns.

        Raises: DataError if the row cannot be written in tokens.
        """
        if row.prompt == "":
            return [self.text(row.completion)]
        if self.pairs:
            return [self._pair(answer) for answer in self._tokens.answers(row)]
        found = []
        for one in self._tokens.demonstrations(row):
            ids = self._bare(one.input_ids)
            text = self.tokenizer.decode(ids, skip_special_tokens=True)
            found.append(self.text(text) if self.words else Document(ids, len(text.encode())))
        return found

    def _pair(self, answer: Answer) -> Document:
        texts = (self.tokenizer.decode(ids, skip_special_tokens=True) for ids in (answer.context, answer.ids))
        return Document(answer.context, sum(len(text.encode()) for text in texts), answer.ids)

    def text(self, text: str) -> Document:
        """Tokenise a text.

        Raises: DataError if it is too long, or has no tokens.
        """
        if len(text) > LONGEST_TEXT:
            raise DataError(
                f"the document has {len(text):,} characters, more than the {LONGEST_TEXT:,} that are tokenised at "
                "once; cut it into several"
            )
        found = self.tokenizer(text, add_special_tokens=False, verbose=False)
        whole = list(found["input_ids"])
        start, end = self._within(whole)
        if start == end:
            raise DataError("the document holds no token to learn")
        words = None
        if self.words:  # a special token that the text spells is in no word
            words = [-1 if word is None else word for word in found.word_ids()[start:end]]
        return Document(whole[start:end], len(text.encode("utf-8", "surrogatepass")), words=words)

    def _bare(self, ids: list[int]) -> list[int]:
        start, end = self._within(ids)
        return ids[start:end]

    def _within(self, ids: list[int]) -> tuple[int, int]:
        """Return where ids begin and end without what the tokenizer puts around a text, if they have it."""
        start = len(self.opening) if self.opening and ids[: len(self.opening)] == self.opening else 0
        ends = {*self.closing, *self.template.stop_token_ids}
        end = len(ids)
        while end > start and ids[end - 1] in ends:
            end -= 1
        return start, end


def bytes_of(tokenizer: Any, ids: Sequence[int], place: int) -> int:
    """Return the bytes that a token adds to the text of those before it, in UTF-8.

    A token that begins or ends within a letter is off by up to two bytes.
    """
    before = ids[max(0, place - CONTEXT) : place]
    texts = (tokenizer.decode(part, skip_special_tokens=True) for part in ([*before, ids[place]], before))
    whole, first = (len(text.encode("utf-8", "surrogatepass")) for text in texts)
    return whole - first


def ends_of(template: Template) -> tuple[list[int], list[int]]:
    """Return the ids before and after a document: what the tokenizer puts there, and always a token that ends it."""
    opening, closing = around(template.tokenizer)
    return opening, closing or [template.eos_token_id]
