"""Python functions that a recipe names as `module:function`."""

import contextlib
import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch

from alignment.errors import AlignmentError
from alignment.run.signals import Terminated


def named_function(where: str, *, key: str, error: type[AlignmentError]) -> tuple[Callable[..., Any], str]:
    """Import a function.

    Args:
        where: `module:function`. key: the recipe's, for messages. error: what to raise.

    Returns: the function, and the first 16 hexadecimal digits of the SHA-256 of its module's source.
    """
    module_name, _, function_name = where.partition(":")
    module = _import(module_name, f"{key} {where}", error)
    function = getattr(module, function_name, None)
    if not callable(function):
        found = "is not a function" if hasattr(module, function_name) else "does not exist"
        raise error(f"{key} {where}: {function_name} {found} in {module.__file__ or module_name}.")
    return function, _source_hash(module)


@contextlib.contextmanager
def calling(what: str, error: type[AlignmentError], about: str = "") -> Iterator[None]:
    """Turn any exception of a recipe's function, `sys.exit(0)` included, into an error with the function's name.

    Args:
        what: the key and the function, for messages. error: what to raise. about: what the function was given.

    Raises: KeyboardInterrupt and Terminated unchanged.
    """
    try:
        yield
    except (KeyboardInterrupt, Terminated):
        raise
    except BaseException as fault:
        raise error(f"{what} raised {described(fault)}{about}; correct the function.") from fault


def described(fault: BaseException) -> str:
    """Return an exception as messages name it, on one line."""
    try:
        text = str(fault)
    except Exception as second:  # the user's class may have a faulty __str__
        text = f"(no text: its __str__ raised {type(second).__name__})"
    return " ".join(f"{type(fault).__name__}: {text}".split()).rstrip(":")


@contextlib.contextmanager
def keeping_gradients() -> Iterator[None]:
    """Restore PyTorch's gradient mode afterwards: code of the user may call `torch.set_grad_enabled`."""
    with torch.set_grad_enabled(torch.is_grad_enabled()):
        yield


def _import(module_name: str, at: str, error: type[AlignmentError]) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # as with `python -m`; the installed command does not search it
    try:
        with keeping_gradients():
            return importlib.import_module(module_name)
    except ModuleNotFoundError as fault:
        if fault.name and (module_name == fault.name or module_name.startswith(f"{fault.name}.")):
            raise error(f"{at}: no module {fault.name!r} in {here} or among the installed packages.") from fault
        raise error(f"{at}: importing {module_name} failed: {fault}; install it.") from fault
    except (KeyboardInterrupt, Terminated):
        raise
    except BaseException as fault:
        raise error(f"{at}: importing {module_name} raised {described(fault)}; correct the module.") from fault


def _source_hash(module: ModuleType) -> str:
    try:
        source = inspect.getsource(module)
    except (OSError, TypeError):
        source = module.__name__  # compiled, or created at run time
    return hashlib.sha256(source.encode()).hexdigest()[:16]
