"""The columns of the data that a Python function of a recipe receives, read from its parameters.

The function is not imported: its module's source is parsed, so that `alignment plan` and `check` run no code of it.
"""

import ast
import inspect
from typing import Any

from alignment.config.module_source import source_of

ALL = "*"  # a function that takes `**kwargs` receives every column that the layout leaves
COMPLETIONS = "completions"  # a function with this parameter has the signature of TRL's reward_funcs
GIVEN = ("prompts", COMPLETIONS, "completion_ids")  # what such a function receives beside columns
NOT_GIVEN = ("trainer_state", "log_extra", "log_metric", "environments")  # of TRL's trainers; not passed here


def columns_of_function(where: str) -> dict[str, bool]:
    """Return the columns that `module:function` receives: name → whether it needs the column.

    Empty for a function that its module's source does not define at the top level; `reward.scorers.function` refuses it
    if it takes columns after all.
    """
    module, _, name = where.partition(":")
    node = _definition(module, name)
    return {} if node is None else columns_of_signature(_signature(node.args))


def columns_of_signature(signature: inspect.Signature) -> dict[str, bool]:
    """Return the columns that a function receives: name → whether it needs the column."""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = {name: each for name, each in signature.parameters.items() if each.kind not in variable}
    own = (*GIVEN, *NOT_GIVEN) if COMPLETIONS in named else [*named][:2]
    found = {name: each.default is each.empty for name, each in named.items() if name not in own}
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in signature.parameters.values())
    return found | {ALL: False} if takes_any else found


def _signature(taken: ast.arguments) -> inspect.Signature:
    """Return the signature of a function's parameters in source; a default is None, whatever its value."""
    positional = [*taken.posonlyargs, *taken.args]
    needed = len(positional) - len(taken.defaults)
    parameters = [_parameter(each, place < needed) for place, each in enumerate(positional)]
    keywords = [
        _parameter(each, default is None, inspect.Parameter.KEYWORD_ONLY)
        for each, default in zip(taken.kwonlyargs, taken.kw_defaults, strict=True)
    ]
    rest = [_parameter(taken.kwarg, True, inspect.Parameter.VAR_KEYWORD)] if taken.kwarg else []
    return inspect.Signature([*parameters, *keywords, *rest])


def _parameter(argument: ast.arg, needed: bool, kind: Any = inspect.Parameter.POSITIONAL_OR_KEYWORD) -> Any:
    return inspect.Parameter(argument.arg, kind, default=inspect.Parameter.empty if needed else None)


def _definition(module: str, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    file = source_of(module)
    try:
        tree = ast.parse(file.read_text(encoding="utf-8")) if file is not None else ast.Module([], [])
    except (OSError, SyntaxError, ValueError):
        return None
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for node in tree.body if isinstance(node, kinds) and node.name == name]
    return found[-1] if found else None
