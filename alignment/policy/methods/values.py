"""Which values a saved adapter's configuration may hold: tests of types and bounds, for the methods' `faults`."""

import re
from collections.abc import Callable
from typing import Any

LARGEST_RANK = 65_536
MOST_NAMES = 10_000
NAME = re.compile(r"[\w.-]{1,300}")


def is_flag(value: Any) -> bool:
    """Whether a value is true or false."""
    return isinstance(value, bool)


def is_rank(value: Any) -> bool:
    """Whether a value is a rank."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST_RANK


def is_number(value: Any) -> bool:
    """Whether a value is a number other than 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < abs(value) < 1e9


def is_share(value: Any) -> bool:
    """Whether a value is a number from 0 to less than 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


def is_text(value: Any) -> bool:
    """Whether a value is null or a text."""
    return value is None or (isinstance(value, str) and len(value) <= 4096)


def are_names(value: Any) -> bool:
    """Whether a value is null or a list of modules' names."""
    return value is None or (
        isinstance(value, list)
        and len(value) <= MOST_NAMES
        and all(isinstance(n, str) and NAME.fullmatch(n) for n in value)
    )


def are_names_or_pattern(value: Any) -> bool:
    """Whether a value is null, a list of modules' names or a pattern."""
    return (isinstance(value, str) and 0 < len(value) <= 4096) or are_names(value)


def are_layers(value: Any) -> bool:
    """Whether a value is null, a layer's number or a list of them."""
    numbers = value if isinstance(value, list) else [value]
    return value is None or (
        len(numbers) <= MOST_NAMES
        and all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1e6 for n in numbers)
    )


def by_pattern(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return a test of objects whose keys are modules' names and whose values pass `is_right`."""
    return lambda value: (
        value is None
        or (
            isinstance(value, dict)
            and len(value) <= MOST_NAMES
            and all(0 < len(key) <= 300 and is_right(one) for key, one in value.items())
        )
    )


def are_tokens(value: Any) -> bool:
    """Whether a value is null, a list of tokens' ids or an object of such lists."""
    lists = list(value.values()) if isinstance(value, dict) else [value]
    return value is None or all(
        isinstance(ids, list) and all(isinstance(i, int) and not isinstance(i, bool) and 0 <= i < 2**31 for i in ids)
        for ids in lists
    )
