"""The next token of each document, in sequences that several documents fill.

Documents are laid end to end; one that does not fit is continued in the next sequence. Positions begin anew with each
document, and no attention mask is given: from that transformers derives that documents do not attend to each other
(`transformers.masking_utils.find_packed_sequence_indices`). The first token of a document has no label, as it would be
predicted from another document.
"""

from collections.abc import Sequence

from alignment.train.padding import attended, padded
from alignment.train.pretraining.documents import Document, bytes_of
from alignment.train.pretraining.objective import IGNORE, Batch, Row, Setting, pieces


class Causal:
    """Rows without packing: each is one document, or a piece of one, padded to the longest of its batch."""

    pairs = False
    words = False
    counts = False  # whether to count `unpredicted`

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.pad = setting.tokenizer.pad_token_id
        self.unpredicted = 0  # bytes of the tokens that begin a piece of a document, which have no label

    def add(self, document: Document) -> list[Row]:
        """Return the pieces of a document."""
        ids, limit = self.whole(document), self.setting.limit
        for begin in range(0, len(ids), limit):
            self._begin_piece(document, begin)
        return [{"input_ids": piece} for piece in pieces(ids, limit) if len(piece) > 1]

    def _begin_piece(self, document: Document, begin: int) -> None:
        """Count the bytes of a token of `whole`, if it is one of the text."""
        place = begin - len(self.setting.opening)
        if self.counts and 0 <= place < len(document.ids):
            self.unpredicted += bytes_of(self.setting.tokenizer, document.ids, place)

    def whole(self, document: Document) -> list[int]:
        """Return a document with the ids around it."""
        return [*self.setting.opening, *document.ids, *self.setting.closing]

    def rest(self) -> list[Row]:
        """Return nothing: every row is complete."""
        return []

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Return `input_ids`, `attention_mask` and `labels`, each (batch, time)."""
        ids = [row["input_ids"] for row in rows]
        labels = padded([[IGNORE, *row[1:]] for row in ids], IGNORE)
        return {"input_ids": padded(ids, self.pad), "attention_mask": attended(ids), "labels": labels}

    def state(self) -> dict[str, list[int]]:
        """Return nothing."""
        return {}

    def restore(self, state: dict[str, list[int]]) -> None:
        """Do nothing."""


class PackedCausal(Causal):
    """Rows of `limit` tokens, each with the position of every token in its document."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._ids: list[int] = []
        self._positions: list[int] = []

    def add(self, document: Document) -> list[Row]:
        """Lay a document behind the others; return the rows that are full."""
        ids, full = self.whole(document), []
        begin = 0
        while begin < len(ids):
            taken = ids[begin : begin + self.setting.limit - len(self._ids)]
            self._begin_piece(document, begin)
            self._ids += taken
            self._positions += range(len(taken))
            begin += len(taken)
            if len(self._ids) == self.setting.limit:
                full += self.rest()
        return full

    def rest(self) -> list[Row]:
        """Return the row that is begun."""
        ids, positions = self._ids, self._positions
        self._ids, self._positions = [], []
        return [{"input_ids": ids, "position_ids": positions}] if any(positions) else []

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Return `input_ids`, `position_ids` and `labels`, each (batch, time); padding is one more document."""
        longest = max(len(row["input_ids"]) for row in rows)
        ids = padded([row["input_ids"] for row in rows], self.pad)
        rooms = [range(longest - len(row["position_ids"])) for row in rows]
        positions = padded([[*row["position_ids"], *room] for row, room in zip(rows, rooms, strict=True)], 0)
        labels = padded([row["input_ids"] for row in rows], IGNORE).masked_fill(positions == 0, IGNORE)
        return {"input_ids": ids, "position_ids": positions, "labels": labels}

    def state(self) -> dict[str, list[int]]:
        """Return the row that is begun."""
        return {"ids": list(self._ids), "positions": list(self._positions)}

    def restore(self, state: dict[str, list[int]]) -> None:
        """Restore the row that was begun."""
        self._ids, self._positions = list(state["ids"]), list(state["positions"])


def causal(setting: Setting) -> Causal:
    """Return the objective, with or without packing as the recipe has it."""
    return PackedCausal(setting) if setting.recipe.packs else Causal(setting)
