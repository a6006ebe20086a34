"""What a generation engine is: token ids and how to sample in, token ids out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn; the model's own generation configuration plays no part."""

    max_new_tokens: int
    temperature: float = 1.0  # 0: the likeliest token, always
    top_p: float = 1.0  # smallest set of tokens that holds this probability; 1: off
    top_k: int = 0  # likeliest tokens kept; 0: off
    stop_token_ids: tuple[int, ...] | list[int] = ()  # any of these ends an answer
    seed: int = 0
    first_row: int = 0  # place of the first prompt in the whole batch, where several processes share one


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled answer."""

    ids: list[int]  # includes the stop token where one was sampled
    stopped: bool  # False: cut off at max_new_tokens
    logp: list[float] | None = None  # of `ids` as the engine sampled them; None if the engine is the model itself

    @property
    def words(self) -> list[int]:
        """The ids without the stop token: those of the text that judges and people see."""
        return self.ids[:-1] if self.stopped else self.ids


class RowAdapters(Protocol):
    """Adapters of a model, of which each row of a batch may have another."""

    def assign(self, names: Sequence[str | None] | None) -> None:
        """Compute the rows of the next batches with these adapters; None among them: with the base."""
        ...

    def select(self, places: Sequence[int]) -> None:
        """Keep only these rows of the batch."""
        ...


class Engine(Protocol):
    """Samples one answer to each prompt, in the prompts' order."""

    def generate(self, prompt_ids: list[list[int]], sampling: Sampling) -> list[Completion]:
        """Return one completion per prompt; the same prompts and sampling give the same completions."""
        ...
