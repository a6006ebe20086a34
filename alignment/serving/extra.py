"""The optional packages that a server needs."""

import importlib

from alignment.errors import RecipeError


def require_extra(verb: str) -> None:
    """Check that the extra `serve` is installed.

    Raises: RecipeError if it is not.
    """
    for name in ("uvicorn", "starlette"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as missing:
            fault = f"alignment {verb} needs {missing.name}, which is in the extra serve: pip install -e '.[serve]'"
            raise RecipeError([fault]) from None
