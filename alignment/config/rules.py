"""Combinations of keys that cannot be."""

from collections.abc import Callable, Iterator
from typing import Any

from alignment.config.documents import Location
from alignment.config.schema import Recipe

Fault = tuple[Location, str]
Rule = Callable[["Keys"], Iterator[Fault]]


class Unknown(Exception):
    """A rule asked for a key whose own fault is already told."""


class Keys:
    """A recipe's values, defaults included, for rules to look at."""

    def __init__(self, cls: type[Recipe], values: dict[str, Any], wrong: set[Any]) -> None:
        """Keep the raw values and the names of those that are at fault."""
        self.cls, self.values, self.wrong = cls, values, wrong

    def given(self, key: str) -> bool:
        """Tell whether the recipe itself gives a key."""
        return key in self.values

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


RULES: list[Rule] = []


def broken_rules(cls: type[Recipe], keys: Keys) -> list[Fault]:
    """Return what the rules find, leaving out those that touch a key already at fault."""
    found: list[Fault] = []
    for rule in RULES:
        try:
            found += list(rule(keys))
        except Unknown:
            continue
    return found
