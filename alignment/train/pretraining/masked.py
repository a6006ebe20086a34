"""Masked language modelling (Devlin et al. 2019, section 3.1, https://arxiv.org/abs/1810.04805).

15 % of the tokens are predicted; of these 80 % are replaced by the mask token, 10 % by a random token and 10 % stay.
transformers' `DataCollatorForLanguageModeling` draws this. Its whole words are always replaced by the mask token, so
whole words are chosen here and replaced by it as 80/10/10. The draws are new in each epoch, and depend on seed, epoch
and row alone; held-out rows have the same draws in every evaluation. Special tokens are never predicted.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import DataCollatorForLanguageModeling

from alignment.errors import ModelError
from alignment.train.padding import attended, padded
from alignment.train.pretraining.documents import Document
from alignment.train.pretraining.objective import IGNORE, Batch, Row, Setting, pieces

TRIES = 1000  # draws for a row of which none of the first is predicted
ALONE = -1  # in place of a word's number: a token that is in no word


class Masked:
    """Rows of one document, or a piece of one, each with the tokenizer's special tokens around it."""

    pairs = False

    def __init__(self, setting: Setting) -> None:
        """Find the mask token.

        Raises: ModelError if the tokenizer has none or cannot tell words, or `max_length` leaves no room for a text.
        """
        tokenizer = setting.tokenizer
        if tokenizer.mask_token_id is None:
            raise ModelError(
                f"the tokenizer of {setting.recipe.model_name_or_path} has no mask token, which objective "
                "masked needs; use a masked language model's tokenizer, or objective causal."
            )
        self.words = setting.recipe.whole_word_mask
        if self.words and not tokenizer.is_fast:
            raise ModelError(
                "whole_word_mask needs a fast tokenizer, which tells the words of a text; set it to false."
            )
        self.setting = setting
        self._special = torch.tensor(tokenizer.all_special_ids)
        self._size = setting.limit - len(setting.opening) - len(setting.closing)
        if self._size < 1:
            raise ModelError(
                f"max_length {setting.limit} leaves no room for a text beside the tokenizer's "
                f"{len(setting.opening) + len(setting.closing)} special tokens; raise it."
            )
        share = setting.recipe.mlm_probability
        self._tokens = DataCollatorForLanguageModeling(tokenizer, mlm_probability=share)
        self._chosen = DataCollatorForLanguageModeling(tokenizer, mlm_probability=1.0)

    def add(self, document: Document) -> list[Row]:
        """Return the pieces of a document."""
        before, after = self.setting.opening, self.setting.closing
        rows: list[Row] = [{"input_ids": [*before, *piece, *after]} for piece in pieces(document.ids, self._size)]
        if self.words:
            alone = [ALONE]
            for row, words in zip(rows, pieces(document.words or [], self._size), strict=True):
                row["words"] = [*alone * len(before), *words, *alone * len(after)]
        return rows

    def rest(self) -> list[Row]:
        """Return nothing: every row is complete."""
        return []

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Return `input_ids`, `attention_mask` and `labels`, each (batch, time)."""
        drawn = [self._drawn(row) for row in rows]
        ids = padded([inputs.tolist() for inputs, _ in drawn], self.setting.tokenizer.pad_token_id)
        labels = padded([labels.tolist() for _, labels in drawn], IGNORE)
        return {"input_ids": ids, "attention_mask": attended([row["input_ids"] for row in rows]), "labels": labels}

    def _drawn(self, row: Row) -> tuple[Tensor, Tensor]:
        """Return the inputs and labels of a row; at least one token is predicted where one may be."""
        ids = torch.tensor(row["input_ids"])
        never = torch.isin(ids, self._special)
        numbers = self.setting.generator(row)
        for _ in range(TRIES):
            if self.words:
                collator, kept = self._chosen, ~self._of_words(row["words"], numbers) | never
            else:
                collator, kept = self._tokens, never
            collator.generator = torch.Generator().manual_seed(int(numbers.integers(2**62)))
            inputs, labels = collator.torch_mask_tokens(ids[None].clone(), special_tokens_mask=kept[None])
            if never.all() or (labels != IGNORE).any():
                break
        return inputs[0], labels[0]

    def _of_words(self, words: Sequence[int], numbers: np.random.Generator) -> Tensor:
        """Return which tokens are in a word that is chosen; each word is, with the probability of a token."""
        known = np.array(words)
        names = np.unique(known[known != ALONE])
        chosen = names[numbers.random(len(names)) < self.setting.recipe.mlm_probability]
        return torch.from_numpy(np.isin(known, chosen))

    def state(self) -> dict[str, list[int]]:
        """Return nothing."""
        return {}

    def restore(self, state: dict[str, list[int]]) -> None:
        """Do nothing."""
