"""Sequence to sequence: T5's span corruption of texts, and answers to prompts, of which a mixture may hold both."""

import re
from collections.abc import Sequence

from alignment.errors import DataError, ModelError
from alignment.train.padding import pairs_batch
from alignment.train.pretraining.documents import Document
from alignment.train.pretraining.objective import Batch, Row, Setting, pieces
from alignment.train.pretraining.spans import corrupted, longest_text, noise_mask

SENTINEL = re.compile(r"<extra_id_(\d+)>")


class Seq2Seq:
    """Rows of a text to corrupt, anew in each epoch, or of a prompt with its answer, which is not empty."""

    pairs = True
    words = False

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._around = len(setting.opening) + len(setting.closing)
        found = {token: SENTINEL.fullmatch(token) for token in setting.tokenizer.get_vocab()}
        numbered = sorted((int(match[1]), token) for token, match in found.items() if match)
        self._sentinels = [setting.tokenizer.convert_tokens_to_ids(token) for _, token in numbered]
        recipe, room = setting.recipe, setting.limit - self._around
        self._shape = (recipe.noise_density, recipe.mean_noise_span_length)
        self._size = longest_text(room, *self._shape, len(self._sentinels))

    def add(self, document: Document) -> list[Row]:
        """Return the pieces of a text, or a pair.

        Raises: ModelError if a text needs sentinels and the tokenizer has none; DataError if a pair is too long.
        """
        if document.answer is not None:
            longest = max(len(document.ids), len(document.answer))
            if longest > self.setting.limit:
                raise DataError(f"its prompt or answer has {longest} tokens; the limit is {self.setting.limit}")
            return [{"input_ids": document.ids, "answer": document.answer}]
        if len(self._sentinels) < 2:
            raise ModelError(
                f"the tokenizer of {self.setting.recipe.model_name_or_path} has no sentinel tokens <extra_id_0>, "
                "<extra_id_1>, ..., which span corruption puts in place of spans; give rows of prompt and completion, "
                "or a T5 tokenizer."
            )
        if self._size < 2:
            raise ModelError(f"max_length {self.setting.limit} leaves no room for span corruption; raise it.")
        found = pieces(document.ids, self._size)
        return [{"input_ids": piece, "answer": []} for piece in found if len(piece) > 1]

    def _whole(self, ids: list[int]) -> list[int]:
        return [*self.setting.opening, *ids, *self.setting.closing]

    def rest(self) -> list[Row]:
        """Return nothing: every row is complete."""
        return []

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Return `input_ids` and `attention_mask`, (batch, time), and `labels`, (batch, target time)."""
        sides = [self._sides(row) for row in rows]
        inputs, targets = [inputs for inputs, _ in sides], [target for _, target in sides]
        return pairs_batch(inputs, targets, self.setting.tokenizer.pad_token_id)

    def _sides(self, row: Row) -> tuple[list[int], list[int]]:
        if row["answer"]:
            return row["input_ids"], row["answer"]
        ids = row["input_ids"]
        noise = noise_mask(len(ids), *self._shape, self.setting.generator(row))
        inputs, target = corrupted(ids, noise, self._sentinels)
        return self._whole(inputs), self._whole(target)

    def state(self) -> dict[str, list[int]]:
        """Return nothing."""
        return {}

    def restore(self, state: dict[str, list[int]]) -> None:
        """Do nothing."""
