"""Batching of requests: one thread runs the model on the requests that wait in a queue."""

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

ROUND_SECONDS = 0.5  # target duration of a batch; a new request waits about as long
SMALL_REQUEST = 16  # answers; a quarter of the queue is kept for requests no larger
TURNS = 8  # a full batch is divided into this many turns
FIRST_CHARACTERS = 2**15  # of the first batch, before its speed is known
LEAST_CHARACTERS = 2**10
MESSAGE_CHARACTERS = 16  # added for each message, for the header that the chat template writes


@dataclass(slots=True, eq=False)
class ScoreRequest:
    """A request for scores: answers with their prompts, and the scores computed so far."""

    prompts: Sequence[Prompt]
    answers: Sequence[str]
    stopped: Sequence[bool]
    client: str = ""  # address of the peer
    future: "Future[list[float]]" = field(default_factory=Future)
    scores: list[float] = field(default_factory=list)  # of the first answers, in order
    taken: int = 0  # number of answers already put into a batch
    spent: int = 0  # number of characters of these answers

    def cost(self, place: int) -> int:
        """Return the characters of an answer with its prompt."""
        return characters(self.prompts[place]) + len(self.answers[place])


def characters(prompt: Prompt) -> int:
    """Return the number of characters that a prompt counts towards the limit."""
    if isinstance(prompt, str):
        return len(prompt)
    return sum(MESSAGE_CHARACTERS + sum(map(len, message.values())) for message in prompt)


class BatchModel(Protocol):
    """A model that scores several answers in one call."""

    def encode(self, prompt: Prompt, answer: str, stopped: bool = True, *, where: str) -> Any:
        """Encode an answer with its prompt.

        Raises: DataError, which begins with `where`, if the model cannot encode it.
        """
        ...

    def score_encoded(self, answers: Sequence[Any]) -> list[float]:
        """Score encoded answers."""
        ...


class Busy(AlignmentError):
    """The queue holds the maximum number of waiting answers."""


@dataclass(frozen=True, slots=True)
class Part:
    """The answers `start` to `stop - 1` of a request, in one batch."""

    request: ScoreRequest
    start: int
    stop: int
    characters: int


class Batcher:
    """Scores the waiting answers in batches of at most `batch_answers`, without waiting for more to arrive.

    Requests that arrive during a batch form the next one, so batches grow with the load, and a single request is not
    delayed. A batch holds at most the text that the model scores in about `ROUND_SECONDS`, so a large request is split.
    Clients take turns; among the requests of a client, the one with the fewest characters scored comes first. An
    invalid request does not affect others. A request whose future is cancelled leaves the queue.
    """

    def __init__(self, model: BatchModel, *, batch_answers: int, most_waiting: int) -> None:
        self.model, self.batch_answers, self.most_waiting = model, batch_answers, most_waiting
        self.waiting = 0  # answers
        self._characters = FIRST_CHARACTERS  # maximum of a batch
        self._changed = threading.Condition()
        self._queue: list[ScoreRequest] = []  # oldest first
        self._last = ""  # client that had the last turn
        self._ending = False
        self._thread = threading.Thread(target=self._work, name="reward-model", daemon=True)
        self._thread.start()

    def submit(self, request: ScoreRequest) -> "Future[list[float]]":
        """Put a request in the queue; its future gets the scores, or a DataError if an answer cannot be encoded.

        Raises: Busy if too many answers wait.
        """
        if not request.answers:
            request.future.set_result([])
            return request.future
        size = len(request.answers)
        with self._changed:
            most = self.most_waiting if size <= SMALL_REQUEST else self.most_waiting * 3 // 4
            if self.waiting and self.waiting + size > most:
                raise Busy(f"{self.waiting} answers are waiting; the limit is {most}. Retry later.")
            self.waiting += size
            self._queue.append(request)
            self._changed.notify()
        request.future.add_done_callback(lambda _: self._leave(request))
        return request.future

    def close(self) -> None:
        """Score the waiting requests, then end."""
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
        """Choose a batch: the oldest request has the first turn, so that it finishes; then clients take turns."""
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
        """Yield requests with remaining answers, in the order of their turns."""
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
        """Adapt the size of a batch so that it takes about `ROUND_SECONDS`."""
        full = characters >= self._characters
        if seconds > ROUND_SECONDS:
            self._characters = max(LEAST_CHARACTERS, int(self._characters * max(0.25, ROUND_SECONDS / seconds)))
        elif full and seconds < ROUND_SECONDS / 2:
            self._characters *= 2

    def _score(self, batch: list[Part]) -> None:
        read: list[tuple[Part, list[Any]]] = []
        for part in batch:
            if part.request.future.done():
                continue  # the client has left, or an earlier part failed
            try:
                read.append((part, self._encode(part)))
            except BaseException as error:  # an exception would end the thread
                _fail(part.request, error)
        try:
            self._score_parts(read)
        except BaseException as error:
            if len(read) == 1:
                _fail(read[0][0].request, error)
                return
            for one in read:  # find the requests that cause the error
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
    """The remaining capacity of a batch or a turn; the first answer always fits."""

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
    """Add the scores of a part; complete the future when the request has all its scores."""
    place = next((place for place, score in enumerate(scores) if not math.isfinite(score)), None)
    if place is not None:
        fault = f"the reward model returned {scores[place]}, which is not a finite number."
        _fail(part.request, ScorerError(f"answers[{part.start + place}]: {fault}"))
        return
    part.request.scores += scores
    if len(part.request.scores) == len(part.request.answers) and part.request.future.set_running_or_notify_cancel():
        part.request.future.set_result(part.request.scores)


def _fail(request: ScoreRequest, error: BaseException) -> None:
    if not isinstance(error, Exception):  # a SystemExit would end the server
        error = ScorerError(f"the reward model's code raised {type(error).__name__}: {error}.")
    if not request.future.done() and request.future.set_running_or_notify_cancel():
        request.future.set_exception(error)
