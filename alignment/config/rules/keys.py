"""Access of rules to a recipe's values."""

from collections.abc import Callable, Iterator
from typing import Any

from alignment.config.documents import Location
from alignment.config.schema import Recipe, Stage

Fault = tuple[Location, str]
Rule = Callable[["Keys"], Iterator[Fault]]


class Unknown(Exception):
    """A rule read a key whose own fault has been reported."""


class Keys:
    """A recipe's values, with defaults."""

    def __init__(self, stage: str, cls: type[Recipe], values: dict[str, Any], wrong: set[Any]) -> None:
        self.stage, self.cls, self.values, self.wrong = stage, cls, values, wrong

    @property
    def about(self) -> Stage:
        """The stage's metadata."""
        return self.cls.STAGE

    def exists(self, key: str) -> bool:
        """Return whether the stage has this key of ours."""
        return key in self.cls.model_fields

    def given(self, key: str) -> bool:
        """Return whether the recipe sets a key."""
        return self.values.get(key) is not None

    def changed(self, key: str) -> bool:
        """Return whether the recipe sets a key to another value than its default."""
        return self.given(key) and self.values[key] != self.cls.model_fields[key].get_default(call_default_factory=True)

    def __getitem__(self, key: str) -> Any:
        if key in self.wrong:
            raise Unknown
        if key in self.values:
            return self.values[key]
        info = self.cls.model_fields.get(key)
        if info is None:
            return None
        if info.is_required():
            raise Unknown
        return info.get_default(call_default_factory=True)
