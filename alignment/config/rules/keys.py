"""A recipe's values as rules see them."""

from collections.abc import Callable, Iterator
from typing import Any

from alignment.config.documents import Location
from alignment.config.schema import Recipe, Stage

Fault = tuple[Location, str]
Rule = Callable[["Keys"], Iterator[Fault]]


class Unknown(Exception):
    """A rule asked for a key whose own fault is already told."""


class Keys:
    """A recipe's values, defaults included, for rules to look at."""

    def __init__(self, stage: str, cls: type[Recipe], values: dict[str, Any], wrong: set[Any]) -> None:
        self.stage, self.cls, self.values, self.wrong = stage, cls, values, wrong

    @property
    def about(self) -> Stage:
        """What the stage states about itself."""
        return self.cls.STAGE

    def exists(self, key: str) -> bool:
        """Tell whether the stage has a key of ours."""
        return key in self.cls.model_fields

    def given(self, key: str) -> bool:
        """Tell whether the recipe itself gives a key."""
        return self.values.get(key) is not None

    def changed(self, key: str) -> bool:
        """Tell whether the recipe gives a key another value than its default, as a resolved recipe does not."""
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
