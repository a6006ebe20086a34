"""`~` and `$VARIABLE` in the paths of a recipe, of a pipeline and of a command line."""

import os
import re
from collections.abc import Iterator
from typing import Any

from alignment.config.library import FILES
from alignment.config.schema import path_keys
from alignment.config.yaml_text import Location

PATHS = path_keys() | FILES.keys()  # keys whose texts are files or folders, or Hub ids, which hold neither sign
NAMED_BY_USERS = frozenset({"columns", "extra_body", "gen_kwargs"})  # mappings whose keys are not ours
VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)\})", re.ASCII)


def expand(value: Any, at: Location = (), name: str = "") -> Iterator[tuple[Location, str]]:
    """Expand all paths inside a mapping or list, in place.

    Args:
        at: location of the value. name: the key of the mapping that holds it; entries of a list have the
            list's.

    Yields: places of paths that cannot be expanded, and the reasons.
    """
    if name in NAMED_BY_USERS:
        return
    places = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in list(places):
        own = str(step) if isinstance(value, dict) else name
        if isinstance(inner, str) and own.rpartition(".")[2] in PATHS:
            value[step], fault = expanded(inner)
            if fault:
                yield (*at, step), fault
        else:
            yield from expand(inner, (*at, step), own)


def expanded(path: str) -> tuple[str, str | None]:
    """Expand one path as a shell does.

    Returns: the path, and what is wrong with it, if anything.
    """
    if "{%" in path or "{{" in path or path.startswith("{"):  # Jinja, JSON
        return path, None
    flag, equals, behind = path.partition("=")
    if path.startswith("--") and equals:  # a word of a command
        found, fault = expanded(behind)
        return flag + equals + found, fault
    names = [first or second for first, second in VARIABLE.findall(path)]
    missing = next((name for name in names if name not in os.environ), None)
    if missing:
        return path, f"{path}: the environment variable {missing} is not set; set it, or write the path out"
    found = VARIABLE.sub(lambda match: os.environ[match[1] or match[2]], path)
    if not found.startswith("~"):
        return found, None
    home = os.path.expanduser(found)
    if home.startswith("~"):
        user = found.partition("/")[0]
        return path, f"{path}: {user} is not a user's home; write the path out, or ./{found} for a folder of that name"
    return home, None
