"""What differs between the recipe of an interrupted run and that of now, key by key."""

import json
import re
from collections.abc import Collection, Iterator
from typing import Any

LONGEST = 60  # characters of a value that are shown
HASH = re.compile(r"[0-9a-f]{64}")


def differences(before: Any, now: Any, *, free: Collection[str] = (), path: str = "") -> Iterator[str]:
    """Yield a line for each key whose value differs, down to the innermost: `judge.logprobs was true, is false`.

    Args:
        free: top-level keys that may differ.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys(), key=str):
            if path or key not in free:
                inner = f"{path}.{key}" if path else str(key)
                yield from differences(before.get(key), now.get(key), path=inner)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for place, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from differences(one, other, path=f"{path}[{place}]")
    elif before != now:
        yield f"{path} was {_shown(before)}, is {_shown(now)}"


def _shown(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, str) and HASH.fullmatch(value):
        return f"{value[:12]}…"
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except ValueError:  # an integer of thousands of digits
        text = "a number of thousands of digits"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
