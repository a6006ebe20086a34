"""A judge that is a Python function, named in the recipe as `module:function`."""

import math
from collections.abc import Callable

from alignment.calls.call import CallContext, ChatReply
from alignment.calls.caller import Caller
from alignment.config.schema.judges import RulesEntry
from alignment.data.rows import Prompt
from alignment.errors import JudgeError
from alignment.evaluate.judging import Comparison, Mode, Verdict
from reward.functions import calling, named_function

Rule = Callable[[Prompt, str, str], float]


class RulesJudge:
    """Calls `function(prompt, first, second)`, which returns the probability that `first` is better."""

    mode: Mode = "pairwise"

    def __init__(self, function: Rule, name: str, where: str, prompt_hash: str, caller: Caller | None = None) -> None:
        self.function = function
        self.name = name
        self.where = where  # module:function, for messages
        self.prompt_hash = prompt_hash  # of the source of the function's module
        self.caller = caller or Caller()

    @classmethod
    def from_entry(cls, entry: RulesEntry, caller: Caller | None = None) -> "RulesJudge":
        """Import the function that the recipe names.

        Raises: JudgeError if there is none.
        """
        where = entry.function
        if not all(where.partition(":")):
            raise JudgeError(
                f"judge.function is {entry.function!r}; a rules judge needs the form module:function, "
                "recipes.tiny.judge:prefer for example."
            )
        function, source_hash = named_function(where, key="judge.function", error=JudgeError)
        return cls(function, entry.name or where, where, source_hash, caller)

    def ask(self, comparison: Comparison) -> Verdict:
        """Call the function.

        Raises: JudgeError if it raises or returns anything except a probability.
        """
        request = {
            "function": self.where,
            "source": self.prompt_hash,
            "prompt": comparison.prompt,
            "answers": [comparison.first, comparison.second],
        }
        context = CallContext(self.name, self.prompt_hash, comparison)
        reply = self.caller.call(context, request, lambda: self._call(comparison))
        if reply.status != "ok":
            return Verdict(None, reply.status, reply.raw)
        try:
            probability = float(reply.raw)
        except ValueError:  # a row of the store that was edited
            probability = math.nan
        if not 0.0 <= probability <= 1.0:
            return Verdict(None, "parse_error", reply.raw)
        return Verdict(probability, "tie" if probability == 0.5 else "ok", reply.raw)

    def _call(self, comparison: Comparison) -> ChatReply:
        about = f" (prompt {str(comparison.prompt)[:80]!r})"
        with calling(f"judge.function {self.where}", JudgeError, about):
            returned = self.function(comparison.prompt, comparison.first, comparison.second)
        try:
            probability = float(returned)
        except (TypeError, ValueError, OverflowError, RuntimeError):  # for example a tensor of two numbers
            probability = math.nan
        if not 0.0 <= probability <= 1.0:
            raise JudgeError(
                f"judge.function {self.where} returned {repr(returned)[:80]}; it must return the probability that the "
                "first answer is better, a number from 0 to 1."
            )
        return ChatReply("ok", repr(probability), repr(probability))


build = RulesJudge.from_entry
