"""Requests that come together are scored together: one thread has the model, all others wait in a queue."""

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch

from alignment.data.conversations import is_whole
from alignment.data.rows import Prompt
from alignment.errors import AlignmentError, DataError, ScorerError
from reward.scorers.ensemble import Encoded, Ensemble


@dataclass(slots=True)
class Asked:
    """One request: answers with their prompts."""

    prompts: Sequence[Prompt]
    answers: Sequence[str]
    stopped: Sequence[bool]
    told: "Future[list[float]]" = field(default_factory=Future)


class Busy(AlignmentError):
    """More answers are waiting than the server was told to keep."""


class Batcher:
    """Scores whatever is waiting, as much at once as `batch_answers`, and never waits for more to come.

    While one batch is with the model the next requests gather, so batches grow with the load and a lone request is not
    held up. A bad request fails alone.
    """

    def __init__(self, model: Ensemble, *, batch_answers: int, most_waiting: int) -> None:
        self.model, self.batch_answers, self.most_waiting = model, batch_answers, most_waiting
        self.waiting = 0  # answers
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="reward-model", daemon=True)
        self._thread.start()

    def ask(self, asked: Asked) -> "Future[list[float]]":
        """Put a request in the queue; its future gets the scores, or a DataError where an answer cannot be read.

        Raises: Busy where too many answers wait.
        """
        with self._lock:
            if self.waiting and self.waiting + len(asked.answers) > self.most_waiting:
                raise Busy(f"{self.waiting} answers are waiting, and {self.most_waiting} may; ask again in a moment.")
            self.waiting += len(asked.answers)
        self._queue.put(asked)
        return asked.told

    def close(self) -> None:
        """Score what is waiting, then end."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, ended = self._gather(first)
            try:
                self._score(batch)
            finally:
                with self._lock:
                    self.waiting -= sum(len(asked.answers) for asked in batch)
            if ended:
                return

    def _gather(self, first: Asked) -> tuple[list[Asked], bool]:
        """Everything that waits, up to a batch; and whether the end came with it."""
        batch, answers = [first], len(first.answers)
        while answers < self.batch_answers:
            try:
                following = self._queue.get_nowait()
            except queue.Empty:
                break
            if following is None:
                return batch, True
            batch.append(following)
            answers += len(following.answers)
        return batch, False

    def _score(self, batch: list[Asked]) -> None:
        read: list[tuple[Asked, list[Encoded]]] = []
        for asked in batch:
            if not asked.told.set_running_or_notify_cancel():
                continue  # whoever asked has gone
            try:
                read.append((asked, self._encode(asked)))
            except BaseException as error:  # the thread has nobody else to tell
                asked.told.set_exception(error)
        try:
            told = self.model.each([answer for _, answers in read for answer in answers]) if read else torch.empty(0, 0)
            scores = iter(self.model.one(told)) if read else iter([])
            for asked, answers in read:
                self._tell(asked, [next(scores) for _ in answers])
        except BaseException as error:
            for asked, _ in read:
                if not asked.told.done():
                    asked.told.set_exception(error)

    def _encode(self, asked: Asked) -> list[Encoded]:
        rows = zip(asked.prompts, asked.answers, asked.stopped, strict=True)
        return [self.model.encode(*row, where=f"answers[{place}]") for place, row in enumerate(rows)]

    @staticmethod
    def _tell(asked: Asked, scores: list[float]) -> None:
        finite = torch.isfinite(torch.tensor(scores)) if scores else torch.ones(0, dtype=torch.bool)
        if bool(finite.all()):
            asked.told.set_result(scores)
        else:
            place = int((~finite).nonzero()[0])
            asked.told.set_exception(ScorerError(f"answers[{place}]: the reward model gave {scores[place]}, no score."))


def rows_of(body: Any, *, most_answers: int) -> Asked:
    """Read a request: `prompts`, each text or messages, `answers`, and perhaps `stopped`, lists of one length.

    Raises: DataError naming what is wrong where.
    """
    if not isinstance(body, dict):
        raise DataError(f'the body is {_kind(body)}; it must be {{"prompts": [...], "answers": [...]}}.')
    unknown = sorted(body.keys() - {"prompts", "answers", "stopped"})
    if unknown:
        raise DataError(f"the body has {', '.join(map(repr, unknown))}; known are prompts, answers and stopped.")
    for key in ("prompts", "answers"):
        if not isinstance(body.get(key), list):
            found = f"is {_kind(body[key])}" if key in body else "is missing"
            raise DataError(f"{key} {found}; it must be a list, one of each for every answer.")
    prompts, answers = body["prompts"], body["answers"]
    stopped = body["stopped"] if body.get("stopped") is not None else [True] * len(answers)
    for key, values in (("prompts", prompts), ("stopped", stopped)):
        if not isinstance(values, list) or len(values) != len(answers):
            found = f"{len(values)} of {key}" if isinstance(values, list) else f"{key} is {_kind(values)}"
            raise DataError(f"{found} for {len(answers)} answers; give one for each.")
    if len(answers) > most_answers:
        raise DataError(f"{len(answers)} answers are more than the {most_answers} that a request may hold; send fewer.")
    for place, (prompt, answer, ended) in enumerate(zip(prompts, answers, stopped, strict=True)):
        if not isinstance(answer, str):
            raise DataError(f"answers[{place}] is {_kind(answer)}, not text.")
        if not isinstance(ended, bool):
            raise DataError(f"stopped[{place}] is {_kind(ended)}, not true or false.")
        if not isinstance(prompt, str):
            _require_messages(prompt, f"prompts[{place}]")
        for key, value in (("prompts", prompt), ("answers", answer)):
            if not is_whole(value):
                raise DataError(f"{key}[{place}] holds half of a surrogate pair, which is no character.")
    return Asked(prompts, answers, stopped)


def _require_messages(value: Any, where: str) -> None:
    if not isinstance(value, list) or not value:
        raise DataError(f"{where} is {_kind(value)}; it must be text or a list of messages.")
    for place, message in enumerate(value):
        parts = [message.get(key) for key in ("role", "content")] if isinstance(message, dict) else [None]
        if not all(isinstance(part, str) for part in parts):
            raise DataError(f"{where}[{place}] is no message with a role and a content, both text.")


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list" if value else "an empty list", str: "text", type(None): "null"}
    return kinds.get(type(value), "true or false" if isinstance(value, bool) else "a number")
