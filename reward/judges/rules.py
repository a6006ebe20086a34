"""A judge that is a Python function, named in the recipe as `module:function`."""

import hashlib
import importlib
import inspect
import math
import os
import sys
from collections.abc import Callable
from types import ModuleType

from alignment.config.schema import JudgeEntry
from alignment.data.rows import Prompt
from alignment.errors import JudgeError
from alignment.evaluate.judging import Comparison, Verdict

Rule = Callable[[Prompt, str, str], float]


class RulesJudge:
    """Asks `function(prompt, first, second)` for the probability that `first` is better."""

    def __init__(self, function: Rule, name: str, where: str, prompt_hash: str) -> None:
        self.function = function
        self.name = name
        self.where = where  # module:function, for messages
        self.prompt_hash = prompt_hash  # of the source of the function's module

    @classmethod
    def from_entry(cls, entry: JudgeEntry) -> "RulesJudge":
        """Import the function that the recipe names.

        Raises: JudgeError where there is none.
        """
        where = entry.function or ""
        module_name, _, function_name = where.partition(":")
        if not module_name or not function_name:
            raise JudgeError(
                f"judge.function is {entry.function!r}; a rules judge needs the form module:function, "
                "recipes.tiny.judge:prefer for example."
            )
        module = _import(module_name, where)
        function = getattr(module, function_name, None)
        if not callable(function):
            found = "is not a function" if hasattr(module, function_name) else "is not there"
            raise JudgeError(f"judge.function {where}: {function_name} {found} in {module.__file__ or module_name}.")
        return cls(function, entry.name or where, where, _source_hash(module))

    def ask(self, comparison: Comparison) -> Verdict:
        """Call the function.

        Raises: JudgeError where it raises or returns anything but a probability; asking on would be useless.
        """
        try:
            returned = self.function(comparison.prompt, comparison.first, comparison.second)
        except Exception as error:
            raise JudgeError(
                f"judge.function {self.where} raised {type(error).__name__}: {error} "
                f"(prompt {str(comparison.prompt)[:80]!r}); mend the function."
            ) from error
        try:
            probability = float(returned)
        except (TypeError, ValueError):
            probability = math.nan
        if not 0.0 <= probability <= 1.0:
            raise JudgeError(
                f"judge.function {self.where} returned {returned!r}; it must return the probability that the first "
                "answer is better, a number from 0 to 1."
            )
        return Verdict(probability, "tie" if probability == 0.5 else "ok", repr(probability))


def _import(module_name: str, where: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # as `python -m` would; the installed command does not look there
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise JudgeError(
                f"judge.function {where}: no module {error.name!r} in {here} or among the installed packages."
            ) from error
        raise JudgeError(f"judge.function {where}: importing {module_name} failed: {error}; install it.") from error
    except Exception as error:
        raise JudgeError(
            f"judge.function {where}: importing {module_name} raised {type(error).__name__}: {error}"
        ) from error


def _source_hash(module: ModuleType) -> str:
    try:
        source = inspect.getsource(module)
    except (OSError, TypeError):
        source = module.__name__  # compiled, or made at run time
    return hashlib.sha256(source.encode()).hexdigest()[:16]
