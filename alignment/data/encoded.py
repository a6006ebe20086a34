"""What encoder and decoder of an encoder-decoder model read around the tokens of a prompt and an answer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from alignment.data.masks import Answer
from alignment.data.rows import Demonstration
from alignment.errors import DataError


@dataclass(frozen=True, slots=True)
class Sides:
    """The tokens around texts of one model: those that its tokenizer puts there, and the first one of the decoder.

    T5's encoder reads `prompt </s>`, and its decoder writes `answer </s>` behind the pad token; BART's encoder reads
    `<s> prompt </s>`, and its decoder writes `<s> answer </s>` behind `</s>`.
    """

    opening: list[int]  # ids that the tokenizer puts before a text
    closing: list[int]  # ids that it puts behind a text
    start: int  # the model's decoder_start_token_id

    def encoded(self, ids: list[int]) -> list[int]:
        """Return a prompt as the encoder reads it: as the tokenizer returns a text, each token around it once."""
        opening = [] if ids[: len(self.opening)] == self.opening else self.opening
        closing = [] if self.closing and ids[-len(self.closing) :] == self.closing else self.closing
        return [*opening, *ids, *closing]

    def decoded(self, ids: list[int]) -> list[int]:
        """Return an answer as the decoder writes it: behind the tokenizer's opening, unless the decoder starts so."""
        return [*self._before(ids), *ids]

    def answer(self, answer: Answer) -> Answer:
        """Return an answer in the context of its prompt as encoder and decoder read it."""
        before = self._before(answer.ids)
        ids, labels = [*before, *answer.ids], [*before, *answer.labels]
        return replace(answer, context=self.encoded(answer.context), ids=ids, labels=labels)

    def decoder_inputs(self, ids: list[int]) -> list[int]:
        """Return what the decoder reads to predict each token of an answer."""
        return [self.start, *ids[:-1]]

    def require_read(self, row: Demonstration, answers: Sequence[Answer], limit: int | None) -> None:
        """Refuse a demonstration that the encoder cannot read.

        Args:
            answers: of the row, by the template. limit: tokens that the encoder reads; None: any number.

        Raises: DataError if the row has no prompt, or one that is too long.
        """
        if row.prompt == "":
            raise DataError(
                "the row is text without a prompt, which the encoder of an encoder-decoder model reads; give rows of "
                "prompt and completion, or learn text in stage pretrain with objective: seq2seq"
            )
        longest = max(len(answer.context) for answer in answers)
        if limit is not None and longest > limit:
            raise DataError(
                f"the prompt has {longest} tokens, and the encoder reads {limit}, which is as many as max_length and "
                "the model's context allow; raise max_length or shorten the prompt"
            )

    def _before(self, ids: list[int]) -> list[int]:
        begun = self.opening == [self.start] or ids[: len(self.opening)] == self.opening
        return [] if begun else self.opening
