"""A scorer that is a Python function, named in the recipe as `module:function`.

    def score(prompts, answers):
        '''Return one number for each answer, higher is better.'''
        return [float(len(answer) < 200) for answer in answers]

`prompts` is a list of text or of lists of messages ({"role": ..., "content": ...}), as in the data; `answers` is a list
of text of the same length. The function may return any sequence of numbers: a list, an array, a tensor.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from alignment.calls.session import JudgeCalls
from alignment.config.schema import PolicyGradientRecipe
from alignment.config.schema.scorers import FunctionEntry
from alignment.data.rows import Prompt
from alignment.errors import ScorerError
from reward.functions import calling, named_function

Function = Callable[[list[Prompt], list[str]], Any]


class FunctionScorer:
    """Calls `function(prompts, answers)` once for all answers."""

    def __init__(self, function: Function, where: str, code_hash: str) -> None:
        self.function = function
        self.where = where  # module:function, for messages
        self.identity = {"function": where, "code_sha256": code_hash}

    @classmethod
    def from_entry(cls, entry: FunctionEntry) -> "FunctionScorer":
        """Import the function that the recipe names.

        Raises: ScorerError if there is none.
        """
        where = entry.function
        function, code_hash = named_function(where, key="scorer function", error=ScorerError)
        return cls(function, where, code_hash)

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str], *, stopped: Sequence[bool]) -> list[float]:
        """Call the function.

        Raises: ScorerError if it raises or returns anything except one number per answer.
        """
        what = f"scorer function {self.where}"
        with calling(what, ScorerError):
            returned = self.function(list(prompts), list(answers))
            scores = _numbers(returned)  # the code of a generator runs here
        if scores is None:
            raise ScorerError(
                f"{what} returned {str(returned)[:80]!r}; it must return one number for each of {len(answers)} answers."
            )
        return scores


def build(entry: FunctionEntry, recipe: PolicyGradientRecipe, calls: JudgeCalls) -> FunctionScorer:
    """Return the scorer of a recipe.

    Raises: ScorerError if there is no such function.
    """
    return FunctionScorer.from_entry(entry)


def _numbers(returned: Any) -> list[float] | None:
    """Return the scores; None if `returned` is not a sequence of numbers."""
    try:
        if isinstance(returned, str | bytes | Mapping | Set):  # unordered, or not numbers
            return None
        given = list(returned)
        return None if any(isinstance(score, str | bytes) for score in given) else [float(score) for score in given]
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None
