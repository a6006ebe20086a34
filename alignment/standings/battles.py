"""Judgements of two models' answers to one prompt, whatever file they come from."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from alignment.config.schema.require import PEOPLE, PERSON
from alignment.data.rows import USABLE

Orders = Literal["both", "one", "unknown"]


@dataclass(frozen=True, slots=True)
class Battle:
    """One judgement; `first` is the model whose win rate is counted, `second` the baseline."""

    cluster: str  # identifies the prompt; judgements on one prompt are not independent
    first: str
    second: str
    probability: float | None  # that the answer of `first` is better; None unless usable
    judge: str
    status: str = "ok"  # as in labels; "failed" where the file has no verdict and no reason
    lengths: tuple[int, int] | None = None  # characters of the two answers
    orders: Orders = "unknown"  # in which the answers were shown
    consistent: bool | None = None  # whether both orders named the same winner; None: not known
    subset: str = ""
    correct: float | None = None  # the gold label, as a probability that `first` is better
    where: str = ""  # "file:line"

    @property
    def usable(self) -> bool:
        """Whether the judgement counts; a failed one never does."""
        return self.probability is not None and self.status in USABLE

    @property
    def voice(self) -> str:
        """The judge, or `people` for every person."""
        return PEOPLE if self.judge.startswith(PERSON) else self.judge

    def turned(self) -> "Battle":
        """Return the same judgement with the two models exchanged."""
        return replace(
            self,
            first=self.second,
            second=self.first,
            probability=None if self.probability is None else 1 - self.probability,
            lengths=None if self.lengths is None else (self.lengths[1], self.lengths[0]),
            correct=None if self.correct is None else 1 - self.correct,
        )


@dataclass
class Battles:
    """The judgements of some files, and what these files were read as."""

    rows: list[Battle] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)  # file → SHA-256
    layouts: dict[str, str] = field(default_factory=dict)  # file → what it holds
    skipped: list[str] = field(default_factory=list)  # "file:line: reason"
    stale: int = 0  # rankings beside an evaluation of answers that it no longer has
    unnamed: list[str] = field(default_factory=list)  # files that do not name the models of their answers


@dataclass(frozen=True, slots=True)
class Match:
    """All judgements of one voice on one pair of models."""

    judge: str
    first: str
    second: str
    battles: tuple[Battle, ...]


def matches(battles: Iterable[Battle], baseline: str | None = None) -> Iterator[Match]:
    """Group judgements by judge and pair of models, in order of appearance.

    Args:
        baseline: the second model wherever it takes part; None: the more frequent order of the rows.
    """
    groups: dict[tuple[str, str, str], list[Battle]] = {}
    for battle in battles:
        low, high = sorted((battle.first, battle.second))
        groups.setdefault((battle.voice, low, high), []).append(battle)
    for (judge, low, high), rows in groups.items():
        first = Counter(row.first for row in rows).most_common(1)[0][0]
        if baseline in (low, high):
            first = high if baseline == low else low
        second = high if first == low else low
        turned = tuple(row if row.first == first else row.turned() for row in rows)
        yield Match(judge, first, second, turned)
