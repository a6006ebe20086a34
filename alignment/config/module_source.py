"""The source files of modules, found without an import of the modules or their parents."""

import importlib.machinery
import importlib.util
import os
from pathlib import Path


def source_of(module: str) -> Path | None:
    """Return the file of a module's source, which a package may lack; None if the top-level module is not found.

    Modules in the working folder are found last, as `reward.functions` imports them.
    """
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top) or importlib.machinery.PathFinder.find_spec(top, [os.getcwd()])
    except ValueError:  # no name, or a module without a specification, such as __main__
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        path = Path(next(iter(spec.submodule_search_locations))).joinpath(*rest)
        return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return Path(spec.origin) if spec.origin and spec.has_location and not rest else None
