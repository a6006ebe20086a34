"""What a preview holds: rows of tokens with their mask, where each row comes from, and counts over all rows."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignment.data.masks import IGNORE
from alignment.data.readers import file_of


@dataclass(frozen=True, slots=True)
class Tokens:
    """One sequence as training gets it."""

    ids: list[int]
    trained: list[bool]  # of `ids`: a loss covers the token, or it belongs to an answer that is compared
    cut: list[int] = field(default_factory=list)  # ids that follow and that `max_length` cuts off
    note: str = ""  # what is not a fact of the tokens

    @classmethod
    def labelled(cls, ids: list[int], labels: Sequence[int], cut: Sequence[int] = ()) -> "Tokens":
        """Return a sequence whose mask its labels are."""
        return cls(ids, [label != IGNORE for label in labels], list(cut))

    @classmethod
    def answered(cls, prompt: Sequence[int], answer: Sequence[int]) -> "Tokens":
        """Return a prompt with an answer, which counts as trained."""
        return cls([*prompt, *answer], [False] * len(prompt) + [True] * len(answer))


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of a row's content, and the key of the data's row that holds it."""

    name: str  # a role, or prompt, completion, chosen, rejected
    text: str
    column: str = ""  # as `messages[2].content`; "" if it is not known


@dataclass(slots=True)
class Row:
    """One row that is trained, or one prompt that is answered."""

    source: str  # "file:line"
    sequences: dict[str, Tokens]  # "segments", or "chosen" and "rejected"
    parts: list[Part] = field(default_factory=list)
    probability: float | None = None  # that chosen is better, or that the answer is good
    question: str | None = None  # what a judge or a writer is asked
    read_by: dict[str, str] = field(default_factory=dict)  # policy → the prompt, where it reads another text
    layout: str = ""  # of the file; `Stage.shown` fills it in

    def chance(self) -> str:
        """Return the probability with its meaning; "" without one."""
        if self.probability is None:
            return ""
        meaning = "chosen is better" if "chosen" in self.sequences else "the answer is good"
        return f"probability {self.probability:.4g} that {meaning}"


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of sequences: how many each has, and how many of these are trained."""

    tokens: list[int]
    trained: list[int]

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` writes."""
        ordered = sorted(self.tokens)
        if not ordered:
            return {}
        found: dict[str, Any] = {"least": ordered[0], "median": ordered[len(ordered) // 2], "most": ordered[-1]}
        return found | {"all": sum(ordered), "trained": sum(self.trained)}


@dataclass(slots=True)
class Stage:
    """All rows of a recipe's stage, of which those that are shown are built on demand."""

    name: str
    sources: list[str]  # of each row: "file:line"
    build: Callable[[int], Row]  # of one of them, by its place
    lengths: Callable[[], Lengths]
    skipped: list[str]  # "file:line: reason"
    files: dict[str, str]  # that were read
    formats: dict[str, str]  # file → layout
    counts: dict[str, Any]  # what training records
    limit: int | None = None  # tokens that a sequence may have
    unit: str = "rows"
    asked: str = "judge"  # who is asked the rows' questions

    def layout(self, source: str) -> str:
        """Return the layout of the file that a row comes from."""
        return self.formats.get(file_of(source, self.formats), "")

    def layouts(self) -> dict[str, int]:
        """Count rows by layout."""
        return dict(Counter(self.layout(source) or "unknown" for source in self.sources))

    def shown(self, count: int) -> list[Row]:
        """Build `count` rows: as many of each file, its first ones, in the order of training."""
        by_file: dict[str, list[int]] = {}
        for place, source in enumerate(self.sources):
            by_file.setdefault(file_of(source, self.formats), []).append(place)
        chosen: list[int] = []
        turn = 0
        while len(chosen) < min(count, len(self.sources)):
            chosen += [places[turn] for places in by_file.values() if turn < len(places)]
            turn += 1
        rows = [self.build(place) for place in sorted(chosen[:count])]
        for row in rows:
            row.layout = self.layout(row.source)
        return rows
