"""A peer's keys: what becomes of each, stated once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from alignment.importing.conversion import Conversion

Ours = Mapping[str, Any]  # keys of the recipe here, with their values
Convert = Callable[["Conversion", Any], Ours]
OFF_HERE = "has no effect with this value"
OFF: tuple[Any, ...] = (None, False, "", 0, [], {})  # values with which most features are off


class Absent(Enum):
    """The default of a key that has none, or whose default needs nothing here."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT


class Drop(Exception):
    """A key has no counterpart and needs none; the text is the reason."""


class Notice(Drop):
    """As `Drop`, and also told where the key is absent: the peer's default does something else."""


class Refuse(Exception):
    """A key changes what is trained, and nothing here does the same; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a peer."""

    name: str
    convert: Convert
    ours: str  # the keys here, for the table; "": dropped or refused
    note: str  # the meaning that carries over, or the reason
    default: Any = ABSENT  # the peer's, which is converted where the key is absent
    stages: tuple[str, ...] = ()  # here, that read the key; (): all
    fate: Literal["translated", "dropped", "refused"] = "translated"  # what is said of it in the table
    nullable: bool = False  # null is a value of its own; else it stands for the default


def renamed(name: str, ours: str, note: str = "", *, default: Any = ABSENT, stages: tuple[str, ...] = ()) -> Key:
    """A key that is called `ours` here and has the same values."""
    return Key(name, lambda _, value: {ours: value}, ours, note, default, stages)


def same(
    name: str, note: str = "", *, default: Any = ABSENT, stages: tuple[str, ...] = (), nullable: bool = False
) -> Key:
    """A key that has its name and its values here too."""
    return replace(renamed(name, name, note, default=default, stages=stages), nullable=nullable)


def converted(
    name: str, ours: str, note: str, convert: Convert, *, default: Any = ABSENT, stages: tuple[str, ...] = ()
) -> Key:
    """A key whose value changes on the way."""
    return Key(name, convert, ours, note, default, stages)


def dropped(name: str, reason: str, *, default: Any = ABSENT, stages: tuple[str, ...] = ()) -> Key:
    """A key without effect on what is trained, or whose effect is always there."""

    def drop(_: "Conversion", value: Any) -> Ours:
        raise Drop(reason)

    return Key(name, drop, "", reason, default, stages, "dropped")


def noticed(name: str, reason: str, *, default: Any, stages: tuple[str, ...] = ()) -> Key:
    """A dropped key whose default does something else at the peer."""

    def notice(_: "Conversion", value: Any) -> Ours:
        raise Notice(reason)

    return Key(name, notice, "", reason, default, stages, "dropped")


def refused(
    name: str, reason: str, *, off: tuple[Any, ...] = OFF, default: Any = ABSENT, stages: tuple[str, ...] = ()
) -> Key:
    """A key that changes what is trained; a value of `off` changes nothing and is dropped."""

    def refuse(_: "Conversion", value: Any) -> Ours:
        if any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in off):
            raise Drop(OFF_HERE)
        raise Refuse(reason)

    return Key(name, refuse, "", reason, default, stages, "refused")


def each(make: Callable[..., Key], names: str, *arguments: Any, **options: Any) -> tuple[Key, ...]:
    """Return a key for each of the names, which blanks separate."""
    return tuple(make(name, *arguments, **options) for name in names.split())
