"""Requests that come together are scored together: one thread has the model, all others wait in a queue."""

import heapq
import math
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from alignment.data.rows import Prompt
from alignment.errors import AlignmentError, ScorerError

ROUND_SECONDS = 0.5  # that a batch should take, and so about what a new request waits
SMALL_REQUEST = 16  # answers; a quarter of the queue is kept for requests no larger
TURNS = 8  # in which a full batch is shared out
FIRST_CHARACTERS = 2**15  # of the first batch, before its speed is known
LEAST_CHARACTERS = 2**10
MESSAGE_CHARACTERS = 16  # that a message counts besides its texts: a template writes a header for each


@dataclass(slots=True, eq=False)
class ScoreRequest:
    """One request for scores: answers with their prompts, and the scores that it has so far."""

    prompts: Sequence[Prompt]
    answers: Sequence[str]
    stopped: Sequence[bool]
    client: str = ""  # who asks: the address of the peer
    future: "Future[list[float]]" = field(default_factory=Future)
    scores: list[float] = field(default_factory=list)  # of the first answers
    taken: int = 0  # answers that were put into a batch
    spent: int = 0  # characters of these

    def cost(self, place: int) -> int:
        """Return the characters of an answer with its prompt."""
        return characters(self.prompts[place]) + len(self.answers[place])


def characters(prompt: Prompt) -> int:
    """Return what a prompt counts towards the limit."""
    if isinstance(prompt, str):
        return len(prompt)
    return sum(MESSAGE_CHARACTERS + sum(map(len, message.values())) for message in prompt)


class BatchModel(Protocol):
    """A model that scores many answers at once."""

    def encode(self, prompt: Prompt, answer: str, stopped: bool = True, *, where: str) -> Any:
        """Return one answer with its prompt as the model reads it.

        Raises: DataError, which begins with `where`, where the model cannot read it.
        """
        ...

    def score_encoded(self, answers: Sequence[Any]) -> list[float]:
        """Score encoded answers."""
        ...


class Busy(AlignmentError):
    """More answers are waiting than the server was told to keep."""


@dataclass(frozen=True, slots=True)
class Part:
    """Answers of one request that are in a batch: those from `start` to before `stop`."""

    request: ScoreRequest
    start: int
    stop: int
    characters: int


class Batcher:
    """Scores whatever is waiting, as much at once as `batch_answers`, and never waits for more to come.

    While one batch is with the model the next requests gather, so batches grow with the load and a lone request is not
    held up. A batch holds no more text than the model scores in about `ROUND_SECONDS`, so a large request comes in
    parts; clients take turns, and of a client's requests the one that has had the least comes first. A bad request
    fails alone. A request whose future is cancelled leaves the queue.
    """

    def __init__(self, model: BatchModel, *, batch_answers: int, most_waiting: int) -> None:
        self.model, self.batch_answers, self.most_waiting = model, batch_answers, most_waiting
        self.waiting = 0  # answers
        self._characters = FIRST_CHARACTERS  # of a batch
        self._changed = threading.Condition()
        self._queue: list[ScoreRequest] = []  # the oldest first
        self._last = ""  # client whose turn it was
        self._ending = False
        self._thread = threading.Thread(target=self._work, name="reward-model", daemon=True)
        self._thread.start()

    def submit(self, request: ScoreRequest) -> "Future[list[float]]":
        """Put a request in the queue; its future gets the scores, or a DataError where an answer cannot be read.

        Raises: Busy where too many answers wait.
        """
        if not request.answers:
            request.future.set_result([])
            return request.future
        size = len(request.answers)
        with self._changed:
            most = self.most_waiting if size <= SMALL_REQUEST else self.most_waiting * 3 // 4
            if self.waiting and self.waiting + size > most:
                raise Busy(f"{self.waiting} answers are waiting, and {most} may; ask again in a moment.")
            self.waiting += size
            self._queue.append(request)
            self._changed.notify()
        request.future.add_done_callback(lambda _: self._leave(request))
        return request.future

    def close(self) -> None:
        """Score what is waiting, then end."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join()

    def _leave(self, request: ScoreRequest) -> None:
        with self._changed:
            self._queue.remove(request)
            self.waiting -= len(request.answers)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._ending)
                if not self._queue:
                    return
                batch = self._choose()
            began = time.monotonic()
            self._score(batch)
            self._adapt(sum(part.characters for part in batch), time.monotonic() - began)

    def _choose(self) -> list[Part]:
        """Share a batch out: a turn to the oldest request, so that it ends, then turns among the clients."""
        left = _Left(self.batch_answers, self._characters)
        answers, size = max(1, self.batch_answers // TURNS), max(1, self._characters // TURNS)
        chosen = []
        for request in self._turns():
            if not left:
                break
            turn = left.up_to(answers, size)
            start, spent = request.taken, request.spent
            while turn and request.taken < len(request.answers):
                cost = request.cost(request.taken)
                turn.take(cost)
                left.take(cost)
                request.spent += cost
                request.taken += 1
            chosen.append(Part(request, start, request.taken, request.spent - spent))
        return chosen

    def _turns(self) -> Iterator[ScoreRequest]:
        """Yield the requests with answers left in the order of their turns; each turn takes some of them."""
        yield self._queue[0]
        heaps: dict[str, list[tuple[int, int, ScoreRequest]]] = {}
        for place, request in enumerate(self._queue):
            if request.taken < len(request.answers):
                heaps.setdefault(request.client, []).append((request.spent, place, request))
        clients = sorted(heaps)
        clients = [name for name in clients if name > self._last] + [name for name in clients if name <= self._last]
        for heap in heaps.values():
            heapq.heapify(heap)
        while heaps:
            for client in clients:
                if client not in heaps:
                    continue
                _, place, request = heapq.heappop(heaps[client])
                self._last = client
                yield request
                if request.taken < len(request.answers):
                    heapq.heappush(heaps[client], (request.spent, place, request))
                elif not heaps[client]:
                    del heaps[client]

    def _adapt(self, characters: int, seconds: float) -> None:
        """Bring the size of a batch nearer to what takes `ROUND_SECONDS`."""
        full = characters >= self._characters
        if seconds > ROUND_SECONDS:
            self._characters = max(LEAST_CHARACTERS, int(self._characters * max(0.25, ROUND_SECONDS / seconds)))
        elif full and seconds < ROUND_SECONDS / 2:
            self._characters *= 2

    def _score(self, batch: list[Part]) -> None:
        read: list[tuple[Part, list[Any]]] = []
        for part in batch:
            if part.request.future.done():
                continue  # whoever asked has gone, or an earlier part was bad
            try:
                read.append((part, self._encode(part)))
            except BaseException as error:  # the thread has nobody else to tell
                _fail(part.request, error)
        try:
            self._score_parts(read)
        except BaseException as error:
            if len(read) == 1:
                _fail(read[0][0].request, error)
                return
            for one in read:  # only those fail that fail alone
                try:
                    self._score_parts([one])
                except BaseException as own:
                    _fail(one[0].request, own)

    def _encode(self, part: Part) -> list[Any]:
        request = part.request
        encoded = []
        for row in range(part.start, part.stop):
            prompt, answer, stopped = request.prompts[row], request.answers[row], request.stopped[row]
            encoded.append(self.model.encode(prompt, answer, stopped, where=f"answers[{row}]"))
        return encoded

    def _score_parts(self, read: list[tuple[Part, list[Any]]]) -> None:
        read = [(part, answers) for part, answers in read if not part.request.future.done()]
        if not read:
            return
        scores = iter(self.model.score_encoded([answer for _, answers in read for answer in answers]))
        for part, answers in read:
            _add(part, [next(scores) for _ in answers])


class _Left:
    """What a batch or a turn may still take; the first answer always fits."""

    def __init__(self, answers: int, characters: int) -> None:
        self.answers, self.characters = answers, characters

    def __bool__(self) -> bool:
        return self.answers > 0 and self.characters > 0

    def take(self, characters: int) -> None:
        self.answers -= 1
        self.characters -= characters

    def up_to(self, answers: int, characters: int) -> "_Left":
        return _Left(min(self.answers, answers), min(self.characters, characters))


def _add(part: Part, scores: list[float]) -> None:
    """Keep the scores of a part, and tell them all once the request is whole."""
    place = next((place for place, score in enumerate(scores) if not math.isfinite(score)), None)
    if place is not None:
        _fail(part.request, ScorerError(
            f"answers[{part.start + place}]: the reward model gave {scores[place]}, no score."))  # fmt: skip
        return
    part.request.scores += scores
    if len(part.request.scores) == len(part.request.answers) and part.request.future.set_running_or_notify_cancel():
        part.request.future.set_result(part.request.scores)


def _fail(request: ScoreRequest, error: BaseException) -> None:
    if not isinstance(error, Exception):  # a SystemExit would end the server
        error = ScorerError(f"the reward model's code raised {type(error).__name__}: {error}.")
    if not request.future.done() and request.future.set_running_or_notify_cancel():
        request.future.set_exception(error)
