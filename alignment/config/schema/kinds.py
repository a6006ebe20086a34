"""Mappings whose `kind` selects a class: their required keys, and the error for a key of another kind."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import model_validator

from alignment.config.schema.parts import Part

E = TypeVar("E", bound="Entry")


class Entry(Part):
    """A mapping of one of several kinds; the classes of all kinds form a union that `kind` discriminates."""

    FAMILY: ClassVar[str]  # for messages: "judge", "scorer"
    NEEDS: ClassVar[tuple[str, str] | None] = None  # the key that this kind requires, and what the key takes

    @classmethod
    def of_kind(cls: type[E], kind: Any) -> type[E] | None:
        """Return the class of a kind; None if no class has it."""
        return next((each for each in cls.kinds() if kind in each.kind_names()), None)

    @classmethod
    def kinds(cls: type[E]) -> Iterator[type[E]]:
        """Yield the classes of all kinds of this family."""
        for each in cls.__subclasses__():
            if each.kind_names():
                yield each
            yield from each.kinds()

    @classmethod
    def kind_names(cls) -> tuple[str, ...]:
        """Return the values of `kind`; none for a class that others derive from."""
        info = cls.model_fields.get("kind")
        return tuple(getattr(info.annotation, "__args__", ())) if info else ()

    @classmethod
    def family(cls) -> type["Entry"]:
        """Return the class that all kinds of the family derive from."""
        return next(each for each in reversed(cls.__mro__) if "FAMILY" in vars(each) and each is not Entry)

    @classmethod
    def keys_of_all_kinds(cls) -> list[str]:
        """Return the keys of all kinds of the family."""
        return list(dict.fromkeys(key for each in cls.family().kinds() for key in each.model_fields))

    @classmethod
    def foreign(cls, key: str) -> str | None:
        """Return why a key of another kind is refused; None if no kind has it."""
        if key not in cls.keys_of_all_kinds():
            return None
        return f"does not belong to a {cls.FAMILY} of kind {cls.kind_names()[0]}"

    @model_validator(mode="before")
    @classmethod
    def _without_unset(cls, values: Any) -> Any:
        """Drop an empty required key, and keys of other kinds with their default value.

        Resolved recipes of earlier versions contain the keys of all kinds.
        """
        if not isinstance(values, Mapping):
            return values
        needed = cls.NEEDS[0] if cls.NEEDS else None
        return {
            key: value
            for key, value in values.items()
            if (value or key != needed) and (key in cls.model_fields or not cls._is_default(key, value))
        }

    @classmethod
    def _is_default(cls, key: str, value: Any) -> bool:
        infos = [each.model_fields[key] for each in cls.family().kinds() if key in each.model_fields]
        defaults = [info.get_default(call_default_factory=True) for info in infos if not info.is_required()]
        return bool(infos) and (value in (None, []) or value in defaults)
