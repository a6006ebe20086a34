"""The columns of the data that a Python function of a recipe receives, read from its parameters.

The function is not imported: its module's source is parsed, so that `alignment plan` and `check` run no code of it.
"""

import ast
import functools
import importlib.machinery
import inspect
import os
import sys
from collections.abc import Mapping
from pathlib import Path

ALL = "*"  # a function that takes `**kwargs` receives every column that the layout leaves
COMPLETIONS = "completions"  # a function with this parameter has the signature of TRL's reward_funcs
GIVEN = ("prompts", COMPLETIONS, "completion_ids")  # what such a function receives beside columns
NOT_GIVEN = ("trainer_state", "log_extra", "log_metric", "environments")  # of TRL's trainers; not passed here


def columns_of_parameters(parameters: Mapping[str, bool], *, variable: bool) -> dict[str, bool]:
    """Return the columns that a function receives: name → whether it needs the column.

    Args:
        parameters: name → whether it has no default, in their order. variable: it takes `**kwargs`.
    """
    names = list(parameters)
    own = (*GIVEN, *NOT_GIVEN) if COMPLETIONS in parameters else names[:2]
    found = {name: needed for name, needed in parameters.items() if name not in own}
    return found | {ALL: False} if variable else found


@functools.lru_cache
def columns_of_function(where: str) -> dict[str, bool]:
    """Return the columns that `module:function` receives; none if its source has no such function.

    Raises: nothing. A function that does not exist is refused where it is imported.
    """
    module, _, name = where.partition(":")
    function = getattr(sys.modules.get(module), name, None)
    if inspect.isfunction(function):
        return columns_of_signature(inspect.signature(function))
    node = _definition(module, name)
    if node is None:
        return {}
    taken = node.args
    positional = [*taken.posonlyargs, *taken.args]
    without_default = len(positional) - len(taken.defaults)
    parameters = {each.arg: place < without_default for place, each in enumerate(positional)}
    parameters |= {each.arg: default is None for each, default in zip(taken.kwonlyargs, taken.kw_defaults, strict=True)}
    return columns_of_parameters(parameters, variable=taken.kwarg is not None)


def columns_of_signature(signature: inspect.Signature) -> dict[str, bool]:
    """Return the columns of a function that is imported."""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = {
        name: each.default is each.empty for name, each in signature.parameters.items() if each.kind not in variable
    }
    kinds = [each.kind for each in signature.parameters.values()]
    return columns_of_parameters(parameters, variable=inspect.Parameter.VAR_KEYWORD in kinds)


def _definition(module: str, name: str) -> ast.FunctionDef | None:
    file = _file_of(module)
    try:
        tree = ast.parse(file.read_text(encoding="utf-8")) if file is not None else ast.Module([], [])
    except (OSError, SyntaxError, ValueError):
        return None
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    return found[-1] if found else None


def _file_of(module: str) -> Path | None:
    """Return a module's source as an import would find it, without importing its parents."""
    folders = [*sys.path, os.getcwd()]
    *parents, last = module.split(".")
    for parent in parents:
        spec = importlib.machinery.PathFinder.find_spec(parent, folders)
        if spec is None or not spec.submodule_search_locations:
            return None
        folders = list(spec.submodule_search_locations)
    spec = importlib.machinery.PathFinder.find_spec(last, folders)
    return Path(spec.origin) if spec is not None and spec.origin and spec.has_location else None
