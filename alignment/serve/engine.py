"""Continuous batching: one thread runs a model, and answers join and leave its batch at every token."""

import contextlib
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from alignment.errors import ModelError
from alignment.rollout.engine import RowAdapters
from alignment.rollout.reading import Reading
from alignment.rollout.slots import parts_of, sequences_of
from alignment.rollout.steps import last_logits, longrope_from
from alignment.serve.answer import Answer, Piece, TokenLogp
from alignment.serve.drawing import draw_each, token_logps
from alignment.serve.waiting import Entry, Waiting
from alignment.serving.batching import Busy

PART = 512  # tokens of a prompt that are read between two steps of the other answers
SCORED = 128  # tokens of a prompt whose log-probabilities over the vocabulary are held at once
Delivery = tuple[Answer, Piece]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one engine holds at most."""

    rows: int = 64  # answers in the batch
    waiting: int = 1024  # answers that wait for a place
    tokens: int = 2**17  # of memory for keys and values: rows times the length of the longest


class Engine:
    """Samples answers to requests of several threads.

    Args:
        model: a causal LM. adapters: of which each answer may have another; None: the model has none.
        pad_token_id: any valid id. post: is given the pieces of a step, in the engine's thread.
    """

    def __init__(
        self,
        model: Any,
        *,
        pad_token_id: int,
        adapters: RowAdapters | None = None,
        bounds: Bounds | None = None,
        post: Callable[[list[Delivery]], None] | None = None,
    ) -> None:
        self.model, self.pad_token_id, self.adapters = model.eval(), pad_token_id, adapters
        self.bounds, self.post = bounds or Bounds(), post or _deliver
        self.sequences = sequences_of(model, PART)
        self.dtype = next(model.parameters()).dtype
        self._other_frequencies = {longrope_from(part) for part in parts_of(model)} - {None}
        self.rows: list[Answer] = []  # in the order of the sequences
        self._lengths: list[int] = []
        self._waiting = Waiting()
        self._reading: Reading | None = None
        self._entries: list[Entry] = []  # whose prompts are being read
        self._work: deque[Callable[[], None]] = deque()
        self._when_unused: list[tuple[str, Callable[[], None]]] = []
        self._kept: Counter[str] = Counter()  # requests that are about to submit answers, by adapter
        self._changed = threading.Condition()
        self._assigned: list[str | None] | None = None
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def in_flight(self) -> int:
        """Answers in the batch and in the queue."""
        reading = sum(len(entry.answers) for entry in self._entries)
        return len(self.rows) + reading + len(self._waiting)

    def submit(self, answers: Sequence[Answer]) -> None:
        """Put answers to one prompt in the queue.

        Raises: Busy if too many wait.
        """
        with self._changed:
            self._waiting.drop_cancelled()
            waiting = len(self._waiting)
            if waiting and waiting + len(answers) > self.bounds.waiting:
                raise Busy(f"{waiting} answers are waiting; the limit is {self.bounds.waiting}. Retry later.")
            self._waiting.add(Entry(answers[0].prompt_ids, list(answers)))
            self._changed.notify()

    def cancel(self, answers: Sequence[Answer]) -> None:
        """Stop sampling answers; their places are free at the next step."""
        with self._changed:
            for answer in answers:
                answer.cancelled = True
            self._changed.notify()

    def between_steps(self, work: Callable[[], Result]) -> "Future[Result]":
        """Do work in the model's thread, such as loading an adapter, or computing with the model."""
        future: Future[Result] = Future()

        def act() -> None:
            if not future.set_running_or_notify_cancel():
                return
            self._assigned = None
            try:
                result = work()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._changed:
            self._work.append(act)
            self._changed.notify()
        return future

    def when_unused(self, adapter: str, work: Callable[[], None]) -> None:
        """Do work in the model's thread once no answer is written with an adapter, and none is about to be."""
        self.between_steps(lambda: self._when_unused.append((adapter, work)))

    @contextlib.contextmanager
    def keeping(self, adapter: str | None) -> Iterator[None]:
        """Count an adapter as used: its prompts are read, and their answers are not submitted yet."""
        if adapter is None:
            yield
            return
        with self._changed:
            self._kept[adapter] += 1
        try:
            yield
        finally:
            with self._changed:
                self._kept[adapter] -= 1
                self._work.append(lambda: None)  # so that the thread looks at `_when_unused`
                self._changed.notify()

    def prompt_logps(self, ids: list[int], adapter: str | None, top: int) -> "Future[list[TokenLogp]]":
        """Compute the log-probabilities of a prompt's tokens but the first, each with those of the likeliest."""
        return self.between_steps(lambda: self._prompt_logps(ids, adapter, top))

    def close(self) -> None:
        """Finish the answers in the batch and the queue, then end."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join()

    # The model's thread

    def _run(self) -> None:
        with torch.no_grad():
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._work or self._busy() or self._ending)
                    if self._ending and not self._work and not self._busy():
                        return
                    work = [self._work.popleft() for _ in range(len(self._work))]
                for act in work:
                    act()
                with torch.inference_mode():  # a tenth faster on small models than `no_grad`
                    self._turn()
                if self._when_unused:
                    self._do_when_unused()

    def _busy(self) -> bool:
        return bool(self.rows or self._entries or len(self._waiting))

    def _turn(self) -> None:
        """Read a part of the next prompts, and append a token to each answer."""
        with self._changed:
            self._waiting.drop_cancelled()
        self._drop_cancelled()
        try:
            self._read()
        except BaseException as error:  # an exception would end the thread
            self._fail_reading(error)
        if self.rows:
            try:
                self._step()
            except BaseException as error:
                self._fail_all(error)

    def _do_when_unused(self) -> None:
        with self._changed:
            used = {answer.adapter for answer in [*self.rows, *self._waiting.answers()]} | set(+self._kept)
        used |= {entry.adapter for entry in self._entries}
        ready = [work for adapter, work in self._when_unused if adapter not in used]
        self._when_unused = [one for one in self._when_unused if one[0] in used]
        for work in ready:
            self._assigned = None
            work()

    def _fail_reading(self, error: BaseException) -> None:
        """End the answers whose prompts were being read; of several prompts, read each apart first."""
        entries, self._reading, self._entries = self._entries, None, []
        if len(entries) > 1:
            self._put_back([replace(entry, apart=True) for entry in entries])
        else:
            self._fail([answer for entry in entries for answer in entry.answers], error)
        if len(self.sequences) != len(self.rows):
            self._fail_all(error)

    def _fail_all(self, error: BaseException) -> None:
        """End all answers in the batch, and begin with an empty one."""
        self._fail(list(self.rows), error)
        self.rows, self._lengths = [], []
        self.sequences = sequences_of(self.model, PART)

    def _drop_cancelled(self) -> None:
        for place in reversed(range(len(self.rows))):
            if self.rows[place].cancelled:
                self._leave(place)

    def _leave(self, place: int) -> None:
        self.sequences.leave(place)
        self.rows[place], self._lengths[place] = self.rows[-1], self._lengths[-1]
        self.rows.pop()
        self._lengths.pop()

    def _read(self) -> None:
        """Read a part of the prompts that are next; if it is the last, draw the first tokens."""
        if not self._entries:
            with self._changed:
                self._entries = self._waiting.take(self._fits, self.sequences.part)
            if not self._entries:
                return
        if all(answer.cancelled for entry in self._entries for answer in entry.answers):
            self._reading, self._entries = None, []
            return
        if self._reading is None:
            prompts = [entry.ids for entry in self._entries]
            self._reading = Reading(self.model, prompts, self.pad_token_id, self.sequences.part)
        self._assign([entry.adapter for entry in self._entries])
        logits = self._reading.advance()
        if logits is not None:
            self._join(self._reading, self._entries, logits)
            self._reading, self._entries = None, []

    def _join(self, reading: Reading, entries: list[Entry], logits: Tensor) -> None:
        """Draw the first tokens of answers whose prompts have been read; those that go on join the batch."""
        pairs = [(place, answer) for place, entry in enumerate(entries) for answer in entry.answers]
        pairs = [(place, answer) for place, answer in pairs if not answer.cancelled]
        going_on = self._draw([answer for _, answer in pairs], logits[[place for place, _ in pairs]])
        joining = [pair for pair, goes_on in zip(pairs, going_on, strict=True) if goes_on]
        if self.sequences.part is None:  # further answers to a prompt are read again
            self._put_back([Entry(answer.all_ids, [answer]) for _, answer in joining[1:]])
            joining = joining[:1]
        if joining:
            self.sequences.join(reading, [place for place, _ in joining])
            self.rows += [answer for _, answer in joining]
            self._lengths += [reading.lengths[place] for place, _ in joining]

    def _step(self) -> None:
        """Append the last token of each answer, and draw the next."""
        self._make_room()
        self._read_again()
        if not self.rows:
            return
        self._assign([answer.adapter for answer in self.rows])
        logits = self.sequences.step([answer.ids[-1] for answer in self.rows])
        self._lengths = [length + 1 for length in self._lengths]
        going_on = self._draw(self.rows, logits)
        for place in reversed(range(len(going_on))):
            if not going_on[place]:
                self._leave(place)

    def _draw(self, answers: Sequence[Answer], logits: Tensor) -> list[bool]:
        """Draw a token for each answer, and deliver what is new; returns which answers go on."""
        drawn = draw_each(answers, logits, alone=self._alone, computed_in=self.dtype)
        posted: list[Delivery] = []
        going_on = []
        for answer, one in zip(answers, drawn, strict=True):
            piece = answer.take(*one) if one is not None else Piece(answer.choice, error=_not_finite())
            going_on.append(piece is None or (piece.finish is None and piece.error is None))
            if piece is not None:
                posted.append((answer, piece))
        if posted:
            self.post(posted)
        return going_on

    def _alone(self, answer: Answer) -> Tensor:
        """Compute the logits of an answer's next token by a pass over its tokens alone."""
        self._assign([answer.adapter])
        ids = torch.tensor([answer.all_ids], device=next(self.model.parameters()).device)
        logits: Tensor = self.model(input_ids=ids, use_cache=False, **last_logits(self.model, 1)).logits[0, -1]
        return logits

    # Memory

    def _fits(self, more: int, longest: int) -> bool:
        """Whether so many more answers have a place. One alone always has."""
        rows = len(self.rows) + more
        return rows == 1 or (rows <= self.bounds.rows and self._needs(rows, longest + 1) <= self.bounds.tokens)

    def _needs(self, rows: int, longest: int) -> int:
        return rows * self.sequences.columns(max([longest, *self._lengths]))

    def _make_room(self) -> None:
        """Put the answers that joined last back into the queue while the next step needs too much memory."""
        put_back = []
        while len(self.rows) > 1 and self._needs(len(self.rows), max(self._lengths) + 1) > self.bounds.tokens:
            answer = self.rows[-1]
            self._leave(len(self.rows) - 1)
            put_back.append(Entry(answer.all_ids, [answer]))
        self._put_back(put_back)

    def _read_again(self) -> None:
        """Put back the answers whose next token has LongRoPE's other frequencies, which their keys do not fit."""
        places = [place for place, length in enumerate(self._lengths) if length in self._other_frequencies]
        put_back = []
        for place in reversed(places):
            put_back.append(Entry(self.rows[place].all_ids, [self.rows[place]]))
            self._leave(place)
        self._put_back(put_back)

    def _put_back(self, entries: list[Entry]) -> None:
        with self._changed:
            for entry in entries:
                self._waiting.put_back(entry)

    def _fail(self, answers: Sequence[Answer], error: BaseException) -> None:
        if not isinstance(error, Exception):
            error = ModelError(f"the model's code raised {type(error).__name__}: {error}")
        if answers:
            self.post([(answer, Piece(answer.choice, error=error)) for answer in answers])

    def _assign(self, names: list[str | None]) -> None:
        if self.adapters is not None and names != self._assigned:
            self._assigned = None
            with torch.inference_mode(False), torch.no_grad():  # what is loaded here is changed outside, too
                self.adapters.assign(names)
            self._assigned = names

    def _prompt_logps(self, ids: list[int], adapter: str | None, top: int) -> list[TokenLogp]:
        self._assign([adapter])
        found: list[TokenLogp] = []
        cache: Any = None
        given = torch.tensor([ids], device=next(self.model.parameters()).device)
        for start in range(0, len(ids) - 1, SCORED if self.sequences.part else len(ids)):
            size = SCORED if self.sequences.part else len(ids)
            part = given[:, start : min(start + size, len(ids) - 1)]
            output = self.model(input_ids=part, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            logps = output.logits[0].float().log_softmax(-1)
            found += token_logps(logps, ids[start + 1 : start + 1 + part.shape[1]], top)
        return found


def _deliver(posted: list[Delivery]) -> None:
    for answer, piece in posted:
        answer.deliver(piece)


def _not_finite() -> ModelError:
    return ModelError("the model's logits are not finite")
