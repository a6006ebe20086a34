"""The contract of a step: what it sees of a row, and what it may do with it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol

from alignment.config.schema.steps.base import On
from alignment.data.formats import FORMATS, Format
from alignment.data.texts import Role, Text, texts_of, with_texts
from alignment.errors import AlignmentError

Mapper = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]  # results in the order of the arguments
ROLES: dict[str, tuple[Role, ...]] = {
    "prompt": ("prompt",),
    "answer": ("answer",),
    "both": ("prompt", "answer"),
    "all": ("system", "prompt", "reasoning", "answer", "rejected"),
}
LAYOUTS: dict[str, Format] = {layout.name: layout for layout in FORMATS}


class StepError(AlignmentError):
    """A step cannot run with its keys or on this data."""

    exit_code = 2


@dataclass(frozen=True)
class Row:
    """One row between two steps."""

    value: dict[str, Any]  # as its layout has it, with its other columns
    origin: str  # "file:line" of the row that it was read as
    layout: str  # name of its layout; "" before a step of kind template
    notes: Mapping[str, Any] = field(default_factory=dict)  # dataset, and what steps noted: language, score
    place: int = -1  # among the rows that a step gets

    @cached_property
    def texts(self) -> list[Text]:
        """The texts of the row in reading order, with roles and places."""
        return texts_of(self.value, LAYOUTS.get(self.layout))

    def parts(self, on: On) -> list[str]:
        """Return the texts of some roles; the context of a rejected answer, which the row repeats, once."""
        wanted = ROLES[on]
        return [text.text for text in self.texts if text.role in wanted and not text.repeats]

    def joined(self, on: On) -> str:
        """Return the texts of some roles as one, parted by blank lines."""
        return "\n\n".join(self.parts(on))

    def by_role(self, roles: Sequence[Role], without: str | None = None) -> tuple[str, ...]:
        """Return one text for each of some roles: its texts, parted by blank lines; empty where there is none.

        Args:
            without: a column that is left out.
        """
        found: dict[Role, list[str]] = {role: [] for role in roles}
        for text in self.texts:
            if text.role in found and not text.repeats and text.path[0] != without:
                found[text.role].append(text.text)
        return tuple("\n\n".join(filter(None, texts)) for texts in found.values())

    def column(self, name: str) -> Any:
        """Return the note of this name, or else the value of the column; None if the row has neither."""
        return self.notes[name] if name in self.notes else self.value.get(name)

    def noting(self, **notes: Any) -> "Row":
        """Return the row with further notes: JSON values. Later steps read them, and the recipe may write them."""
        return replace(self, notes={**self.notes, **notes})

    def with_texts(self, new: Sequence[str]) -> "Row":
        """Return the row with other texts, one for each of `texts`, also for those that repeat."""
        return replace(self, value=with_texts(self.value, self.texts, new))


@dataclass(frozen=True, slots=True)
class Drop:
    """The row is left out."""

    reason: str  # the same words for the same reason: rows are counted by them
    detail: str = ""  # of this row, such as the value that a limit was compared with
    private: bool = False  # its texts are not recorded


@dataclass(frozen=True, slots=True)
class Change:
    """The row is replaced by another, or by several."""

    reason: str
    rows: tuple[Row, ...]
    detail: str = ""
    private: bool = False


Outcome = Row | Drop | Change  # a row: kept as it is, perhaps with further notes


class Rows(Protocol):
    """All rows that reach a step. They are on disk: each iteration reads them anew, with `place` from 0."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Row]: ...


class Step:
    """One step. `build(entry, seed)` of its module returns it."""

    LOOKS: ClassVar[bool] = False  # `look` is called before `apply`, in the main process
    roles: tuple[Role, ...] = ()  # of the texts that it reads
    by: str | None = None  # the note or column that it reads
    mapped: Mapper = map  # applies a function to jobs in the processes of the run; for `look`

    def require(self, rows: Rows) -> None:
        """Refuse the data, as they are read, before anything is written.

        Raises: StepError.
        """

    def look(self, rows: Rows) -> None:
        """Look at all rows, and decide: called once, before `apply`."""

    def apply(self, row: Row) -> Outcome:
        """Return what becomes of a row.

        Rows come in their order. Steps without `LOOKS` are built and called in several processes, and must not depend
        on other rows.
        """
        raise NotImplementedError

    def findings(self) -> dict[str, Any]:
        """Return what the page and the manifest show of the step: JSON. Only asked of steps with `LOOKS`.

        `clusters`: a list of {size, texts, kept}, the largest first, is shown as clusters of duplicates.
        `label_conflicts`: a list of {origin: label}, rows whose texts agree.
        """
        return {}
