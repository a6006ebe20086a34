"""From a request to answers that are being sampled, and their pieces as they arrive."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignment.rollout.engine import Sampling
from alignment.serve.answer import Answer, Piece, Wanted
from alignment.serve.faults import ApiError
from alignment.serve.models import Served
from alignment.serve.replies import Whole
from alignment.serve.requests import Settings
from alignment.strict_json import shown


@dataclass
class Sampled:
    """Answers to the prompts of one request; leaving the context stops those that are not finished.

    Args:
        prompts: token ids. The answers to the first come first.
        key: of the request, which has the prompts.
    """

    served: Served
    prompts: Sequence[list[int]]
    settings: Settings
    key: str = "prompt"

    def __post_init__(self) -> None:
        self._pieces: asyncio.Queue[Piece] = asyncio.Queue()
        bounds, n = self.served.base.engine.bounds, self.settings.n
        if n > bounds.rows:
            raise ApiError(f"n is {n}; the server writes at most {bounds.rows} answers together.", "n")
        if len(self.prompts) > 1 and len(self) > bounds.waiting:  # one prompt always has a place in an empty queue
            raise ApiError(
                f"{len(self.prompts)} prompts with n {n} are {len(self)} answers; at most {bounds.waiting} wait.",
                "prompt",
            )
        wanted = [self._wanted(ids) for ids in self.prompts]
        seed = self.settings.seed_or_new()
        self._answers = [
            Answer(
                place * self.settings.n + number, ids, own, seed=(seed, number), tokenizer=self.served.policy.tokenizer,
                adapter=self.served.adapter, deliver=self._pieces.put_nowait,
            )
            for place, (ids, own) in enumerate(zip(self.prompts, wanted, strict=True))
            for number in range(self.settings.n)
        ]  # fmt: skip

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(map(len, self.prompts))

    def __len__(self) -> int:
        """Return the number of answers."""
        return len(self.prompts) * self.settings.n

    def __enter__(self) -> "Sampled":
        """Begin.

        Raises: Busy if too many answers wait.
        """
        n = self.settings.n
        if self.settings.max_tokens == 0:
            for answer in self._answers:
                answer.deliver(Piece(answer.choice, finish="length"))
            return self
        try:
            for place in range(len(self.prompts)):
                self.served.base.engine.submit(self._answers[place * n : (place + 1) * n])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        """Stop."""
        self.served.base.engine.cancel(self._answers)

    def begin_with(self, echoes: Mapping[int, Whole]) -> None:
        """Count the characters of answers behind what they begin with."""
        for number, whole in echoes.items():
            self._answers[number].begin_at(len(whole.text))

    async def pieces(self) -> AsyncIterator[list[Piece]]:
        """Yield the pieces that have arrived, until all answers are finished.

        Raises: the error that ended an answer.
        """
        left = len(self._answers)
        while left:
            arrived = [await self._pieces.get()]
            while not self._pieces.empty():
                arrived.append(self._pieces.get_nowait())
            for piece in arrived:
                if piece.error is not None:
                    raise piece.error
                left -= piece.finish is not None
            yield arrived

    def _wanted(self, ids: list[int]) -> Wanted:
        settings, served = self.settings, self.served
        require_known(ids, served, "prompt")
        require_known(settings.bias, served, "logit_bias")
        room = room_for(ids, settings.max_tokens, served, self.key)
        sampling = Sampling(
            max_new_tokens=room,
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            stop_token_ids=tuple(served.policy.template.stop_token_ids),
        )
        return Wanted(
            sampling,
            is_seeded=settings.is_seeded,
            bias=settings.bias,
            presence_penalty=settings.presence_penalty,
            frequency_penalty=settings.frequency_penalty,
            stop=settings.stop,
            logprobs=settings.logprobs,
            streams=settings.streams,
        )


def room_for(ids: list[int], max_tokens: int | None, served: Served, key: str) -> int:
    """Return how many tokens an answer may have.

    Raises: ApiError if prompt and answer do not fit the context.
    """
    context = served.base.context
    wanted = 1 if max_tokens is None else max_tokens
    if len(ids) + wanted > context:
        asked = "" if max_tokens is None else f" and max_tokens is {max_tokens}"
        remedy = f"Shorten the prompt{'' if max_tokens is None else ', or lower max_tokens'}."
        raise served.too_long(f"{len(ids)}{asked}", key, remedy=remedy)
    return context - len(ids) if max_tokens is None else max_tokens


def require_known(ids: Any, served: Served, key: str) -> None:
    """Refuse token ids that the model does not have.

    Raises: ApiError.
    """
    unknown = next((token for token in ids if not 0 <= token < served.base.vocabulary), None)
    if unknown is not None:
        raise ApiError(
            f"{key} has the token id {shown(unknown)}; {served.name!r} has ids from 0 to {served.base.vocabulary - 1}.",
            key,
        )
