"""Requests that come together are scored together: one thread has the model, all others wait in a queue."""

import heapq
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import torch

from alignment.errors import AlignmentError, ScorerError
from reward.scorers.ensemble import Encoded, Ensemble
from reward.serving.asked import Asked

ROUND_SECONDS = 0.5  # that a batch should take, and so about what a new request waits
SMALL_REQUEST = 16  # answers; a quarter of the queue is kept for requests no larger
TURNS = 8  # in which a full batch is shared out
FIRST_CHARACTERS = 2**15  # of the first batch, before its speed is known
LEAST_CHARACTERS = 2**10


class Busy(AlignmentError):
    """More answers are waiting than the server was told to keep."""


@dataclass(frozen=True, slots=True)
class Part:
    """Answers of one request that are in a batch: those from `start` to before `stop`."""

    asked: Asked
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

    def __init__(self, model: Ensemble, *, batch_answers: int, most_waiting: int) -> None:
        self.model, self.batch_answers, self.most_waiting = model, batch_answers, most_waiting
        self.waiting = 0  # answers
        self._characters = FIRST_CHARACTERS  # of a batch
        self._changed = threading.Condition()
        self._queue: list[Asked] = []  # the oldest first
        self._last = ""  # client whose turn it was
        self._ending = False
        self._thread = threading.Thread(target=self._work, name="reward-model", daemon=True)
        self._thread.start()

    def ask(self, asked: Asked) -> "Future[list[float]]":
        """Put a request in the queue; its future gets the scores, or a DataError where an answer cannot be read.

        Raises: Busy where too many answers wait.
        """
        if not asked.answers:
            asked.told.set_result([])
            return asked.told
        size = len(asked.answers)
        with self._changed:
            most = self.most_waiting if size <= SMALL_REQUEST else self.most_waiting * 3 // 4
            if self.waiting and self.waiting + size > most:
                raise Busy(f"{self.waiting} answers are waiting, and {most} may; ask again in a moment.")
            self.waiting += size
            self._queue.append(asked)
            self._changed.notify()
        asked.told.add_done_callback(lambda _: self._leave(asked))
        return asked.told

    def close(self) -> None:
        """Score what is waiting, then end."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join()

    def _leave(self, asked: Asked) -> None:
        with self._changed:
            self._queue.remove(asked)
            self.waiting -= len(asked.answers)

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
        for asked in self._turns():
            if not left:
                break
            turn = left.up_to(answers, size)
            start, spent = asked.taken, asked.spent
            while turn and asked.taken < len(asked.answers):
                cost = asked.cost(asked.taken)
                turn.take(cost)
                left.take(cost)
                asked.spent += cost
                asked.taken += 1
            chosen.append(Part(asked, start, asked.taken, asked.spent - spent))
        return chosen

    def _turns(self) -> Iterator[Asked]:
        """Yield the requests with answers left in the order of their turns; each turn takes some of them."""
        yield self._queue[0]
        heaps: dict[str, list[tuple[int, int, Asked]]] = {}
        for place, asked in enumerate(self._queue):
            if asked.taken < len(asked.answers):
                heaps.setdefault(asked.client, []).append((asked.spent, place, asked))
        clients = sorted(heaps)
        clients = [name for name in clients if name > self._last] + [name for name in clients if name <= self._last]
        for heap in heaps.values():
            heapq.heapify(heap)
        while heaps:
            for client in clients:
                if client not in heaps:
                    continue
                _, place, asked = heapq.heappop(heaps[client])
                self._last = client
                yield asked
                if asked.taken < len(asked.answers):
                    heapq.heappush(heaps[client], (asked.spent, place, asked))
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
        read: list[tuple[Part, list[Encoded]]] = []
        for part in batch:
            if part.asked.told.done():
                continue  # whoever asked has gone, or an earlier part was bad
            try:
                read.append((part, self._encode(part)))
            except BaseException as error:  # the thread has nobody else to tell
                _fail(part.asked, error)
        try:
            self._tell(read)
        except BaseException as error:
            if len(read) == 1:
                _fail(read[0][0].asked, error)
                return
            for one in read:  # only those fail that fail alone
                try:
                    self._tell([one])
                except BaseException as own:
                    _fail(one[0].asked, own)

    def _encode(self, part: Part) -> list[Encoded]:
        asked, rows = part.asked, range(part.start, part.stop)
        return [self.model.encode(asked.prompts[row], asked.answers[row], asked.stopped[row], where=f"answers[{row}]")
                for row in rows]  # fmt: skip

    def _tell(self, read: list[tuple[Part, list[Encoded]]]) -> None:
        read = [(part, answers) for part, answers in read if not part.asked.told.done()]
        if not read:
            return
        members = self.model.each([answer for _, answers in read for answer in answers])
        scores = iter(self.model.one(members))
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
    finite = torch.isfinite(torch.tensor(scores))
    if not bool(finite.all()):
        place = int((~finite).nonzero()[0])
        _fail(part.asked, ScorerError(
            f"answers[{part.start + place}]: the reward model gave {scores[place]}, no score."))  # fmt: skip
        return
    part.asked.scores += scores
    if len(part.asked.scores) == len(part.asked.answers) and part.asked.told.set_running_or_notify_cancel():
        part.asked.told.set_result(part.asked.scores)


def _fail(asked: Asked, error: BaseException) -> None:
    if not isinstance(error, Exception):  # a SystemExit would end the server
        error = ScorerError(f"the reward model's code raised {type(error).__name__}: {error}.")
    if not asked.told.done() and asked.told.set_running_or_notify_cancel():
        asked.told.set_exception(error)
