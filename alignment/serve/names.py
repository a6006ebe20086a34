"""The names under which runs are served."""

from collections.abc import Sequence
from pathlib import Path

from alignment.errors import RecipeError


def named_runs(runs: Sequence[str]) -> dict[str, str]:
    """Return runs by the names under which they are served: NAME=RUN, or the last part of a folder's path.

    Raises: RecipeError if two have one name.
    """
    found: dict[str, str] = {}
    faults = []
    for given in runs:
        name, equals, run = given.partition("=")
        if not equals or Path(given).exists():
            run = given
            name = Path(given).resolve().name if Path(given).exists() else given
        if not name or not run or not name.isprintable():
            faults.append(f"{given}: write RUN, or NAME=RUN")
        elif name in found:
            faults.append(f"{found[name]} and {run} would both be served as {name}; write NAME={run}")
        found[name] = run
    if faults:
        raise RecipeError(faults)
    return found
