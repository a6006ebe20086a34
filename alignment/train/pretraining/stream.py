"""Text that does not fit into memory: documents read one by one, shuffled in a buffer, from a kept place.

Each process reads the rows whose number leaves its rank when divided by the number of processes. A checkpoint keeps
the place in the files, the buffer, the sequence that is begun and the random numbers, so a resumed run goes on with the
next sequence and reads nothing twice. (`datasets` loses the shuffle buffer of a stream that is resumed.)
"""

import random
from collections.abc import Iterator
from typing import Any

from accelerate import PartialState
from torch.utils.data import IterableDataset

from alignment.config.schema.pretrain import PretrainRecipe
from alignment.data.streamed import Corpus
from alignment.data.template import Template
from alignment.errors import DataError, TrainingError, named_inputs
from alignment.meter import say_once
from alignment.train.pretraining.documents import Document, Documents
from alignment.train.pretraining.objective import DRAW, Batch, Objective, Row
from alignment.train.pretraining.rows import EpochRows, Prepared

MOST_EMPTY = 10_000  # chunks in a row without a document


class TextStream(IterableDataset[Row]):
    """Endless training sequences of one process."""

    def __init__(
        self, recipe: PretrainRecipe, documents: Documents, objective: Objective, *, process: int, processes: int
    ) -> None:
        self.corpus = Corpus(recipe.datasets, recipe.on_bad_row, process=process, processes=processes)
        self.documents, self.objective = documents, objective
        self.process, self.processes = process, processes
        self.size, self.on_bad_row = recipe.shuffle_buffer_size, recipe.on_bad_row
        self._random = random.Random(f"{recipe.seed} {process}")
        self._buffer: list[Document] = []
        self._ready: list[Row] = []
        self._made = 0  # sequences, of this process
        self._skipped = 0  # rows that give no document

    def __iter__(self) -> Iterator[Row]:
        """Yield sequences, each as it is needed."""
        empty = 0
        while True:
            while self._ready:
                yield self._numbered(self._ready.pop(0))
            while len(self._buffer) < self.size:
                before = len(self._buffer)
                self._read()
                empty = 0 if len(self._buffer) > before else empty + 1
                if empty > MOST_EMPTY or (empty and self.corpus.passes > 1 and not self._buffer):
                    raise DataError(
                        f"{', '.join(self.corpus.hashes)}: no row gives a document for process {self.process}."
                    )
                if self._buffer and self.corpus.passes > 0 and len(self._buffer) < self.size:
                    break  # the files hold fewer documents than the buffer
            place = self._random.randrange(len(self._buffer))
            self._buffer[place], self._buffer[-1] = self._buffer[-1], self._buffer[place]
            self._ready = self.objective.add(self._buffer.pop())

    def _numbered(self, row: Row) -> Row:
        self._made += 1
        return {**row, DRAW: [0, self.process, self._made]}

    @named_inputs(DataError)
    def _read(self) -> None:
        begins = not self.corpus.passes
        rows = self.corpus.chunk()
        if begins and self.corpus.passes:
            skipped = self.corpus.skipped + self._skipped
            left_out = f", of which this process left out {skipped:,}" if skipped else ""
            say_once(f"the stream has read all {self.corpus.taken:,} rows{left_out}, and begins again")
        for row in rows:
            try:
                self._buffer += self.documents.read(row)
            except DataError as error:
                if self.on_bad_row == "stop":
                    raise DataError(f"{row.source}: {error} (on_bad_row: skip leaves such rows out).") from error
                self._skipped += 1

    def state_dict(self) -> dict[str, Any]:
        """Return all that decides the next sequences, in types that `torch.load(weights_only=True)` reads."""
        version, numbers, gauss = self._random.getstate()
        return {
            "places": self.corpus.state(),
            "processes": self.processes,
            "buffer": [[each.ids, each.size, each.answer, each.words] for each in self._buffer],
            "ready": [dict(row) for row in self._ready],
            "begun": self.objective.state(),
            "made": self._made,
            "skipped": self._skipped,
            "random": [version, list(numbers), gauss],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises: TrainingError if the number of processes has changed: their parts of the rows would be others.
        """
        if state["processes"] != self.processes:
            raise TrainingError(
                f"the checkpoint's stream was read by {state['processes']} processes, and there are {self.processes}; "
                "resume with as many as before."
            )
        self.corpus.restore(state["places"])
        self._buffer = [Document(*each) for each in state["buffer"]]
        self._ready, self._made, self._skipped = state["ready"], state["made"], state["skipped"]
        self.objective.restore(state["begun"])
        version, numbers, gauss = state["random"]
        self._random.setstate((version, tuple(numbers), gauss))


def text_of(recipe: PretrainRecipe, template: Template, objective: Objective, train: Prepared) -> Any:
    """Return a trainer's rows: those that are prepared, or a stream of this process's part of the text."""
    if not recipe.streaming:
        return EpochRows(train.rows)
    documents = Documents(template, pairs=objective.pairs, words=objective.words)
    state = PartialState()
    return TextStream(recipe, documents, objective, process=state.process_index, processes=state.num_processes)


class StreamLoader:
    """Batches of a stream, none read ahead: a checkpoint's state is that of the batches that were trained."""

    def __init__(self, stream: TextStream, size: int, begins: Any) -> None:
        """`begins`: called before the first batch."""
        self.stream, self.size, self.begins = stream, size, begins

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches without an end."""
        self.begins()
        rows = iter(self.stream)
        while True:
            yield self.stream.objective.collate([next(rows) for _ in range(self.size)])
