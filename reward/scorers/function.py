"""A scorer that is a Python function, named in the recipe as `module:function`.

    def score(prompts, answers, answer):
        '''Return one number for each answer, higher is better.'''
        return [float(text.endswith(right)) for text, right in zip(answers, answer)]

`prompts` is a list of text or of lists of messages ({"role": ..., "content": ...}), as in the data; `answers` is a list
of text of the same length. Every further parameter is a column of the data, a list of the same length, None where a row
does not have it. The function may return any sequence of numbers: a list, an array, a tensor. None means that the
function does not apply to a row.

A function with a parameter `completions` is called as TRL's trainers call `reward_funcs`: by keyword, with `prompts`,
`completions`, `completion_ids` and the columns. The completion of a prompt of messages is a list of one message.

A function of either kind may be `async def`; its coroutine runs within the time limit.
"""

import asyncio
import copy
import inspect
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from alignment.calls.session import JudgeCalls
from alignment.config.function_columns import ALL, COMPLETIONS, GIVEN, NOT_GIVEN, columns_of_signature
from alignment.config.schema import PolicyGradientRecipe
from alignment.config.schema.scorers import FunctionEntry
from alignment.data.rows import Prompt
from alignment.errors import ScorerError
from alignment.run.signals import Terminated
from alignment.train.policy_gradient.scoring import Answered
from reward.functions import described, keeping_gradients, named_function
from reward.scorers.rows import Scores, faulty_row, row_name
from reward.time_limit import Expired, call_within

Function = Callable[..., Any]


class FunctionScorer:
    """Calls a function once for all answers."""

    def __init__(
        self,
        function: Function,
        where: str,
        code_hash: str,
        *,
        columns: Sequence[str] = (),
        timeout_seconds: float = 300.0,
    ) -> None:
        self.function = function
        self.where = where  # module:function, for messages
        self.columns = columns
        self.timeout_seconds = timeout_seconds
        self.identity = {"function": where, "code_sha256": code_hash}
        self.trl, self.takes = _signature_of(function, columns, f"scorer function {where}")

    @classmethod
    def from_entry(cls, entry: FunctionEntry) -> "FunctionScorer":
        """Import the function that the recipe names.

        Raises: ScorerError if there is none, or it takes other parameters than it can be given.
        """
        where = entry.function
        function, code_hash = named_function(where, key="scorer function", error=ScorerError)
        columns = [*entry.columns_read]
        _require_read(function, entry)
        return cls(function, where, code_hash, columns=columns, timeout_seconds=entry.timeout_seconds)

    def score_rows(self, given: Answered) -> Scores:
        """Call the function.

        Raises: ScorerError if it raises, exceeds `timeout_seconds`, or returns anything except one number per answer.
        """
        prompts, answers = given.prompts, given.answers
        what = f"scorer function {self.where}"
        rows = given.columns or [{} for _ in answers]
        ids = [record["response_ids"][0] for record in given.tokens] or [[] for _ in answers]

        def call(places: Sequence[int]) -> Scores | str:
            """Return the scores of some answers, or what the function returned in place of them."""
            arguments = self._arguments(
                *copy.deepcopy(  # of what training uses too
                    (
                        [prompts[i] for i in places],
                        [answers[i] for i in places],
                        [rows[i] for i in places],
                        [ids[i] for i in places],
                    )
                )
            )
            returned = self.function(*arguments[0], **arguments[1])
            if inspect.iscoroutine(returned):
                returned = asyncio.run(returned)
            scores = _numbers(returned)  # the code of a generator runs here
            return f"{str(returned)[:80]!r}" if scores is None else scores

        try:
            with keeping_gradients():
                scores = call_within(self.timeout_seconds, lambda: call(range(len(answers))))
        except (KeyboardInterrupt, Terminated):
            raise
        except BaseException as fault:
            found = f"raised {described(fault)}"
            remedy = "correct the function"
            if isinstance(fault, Expired):
                found = f"did not return within timeout_seconds: {self.timeout_seconds:g}"
                remedy += ", or give it more time"
            place = faulty_row(call, len(answers), self.timeout_seconds)
            row = f" The row: {row_name(prompts[place], answers[place])}." if place is not None else ""
            raise ScorerError(f"{what} {found}; {remedy}.{row}") from fault
        if isinstance(scores, str):
            must = f"it must return one number for each of {len(answers)} answers"
            raise ScorerError(f"{what} returned {scores}; {must}.")
        return scores

    def _arguments(
        self,
        prompts: list[Prompt],
        answers: list[str],
        rows: list[Mapping[str, Any]],
        ids: list[list[int]],
    ) -> tuple[list[Any], dict[str, Any]]:
        names = [name for name in self.columns if name != ALL]
        if ALL in self.columns:
            names += sorted({name for row in rows for name in row} - {*names})
        columns = {name: [row.get(name) for row in rows] for name in names}
        if not self.trl:
            return [prompts, answers], columns
        if taken := sorted(columns.keys() & {*GIVEN}):
            raise ScorerError(
                f"scorer function {self.where}: the data has a column {', '.join(taken)}, and the function receives an "
                "argument of that name; give the column another name with columns: {NAME: COLUMN}."
            )
        completions = [
            text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
            for prompt, text in zip(prompts, answers, strict=True)
        ]
        given = {"prompts": prompts, COMPLETIONS: completions, "completion_ids": ids}
        return [], columns | {name: given[name] for name in given if self.takes is None or name in self.takes}


def build(entry: FunctionEntry, recipe: PolicyGradientRecipe, calls: JudgeCalls) -> FunctionScorer:
    """Return the scorer of a recipe.

    Raises: ScorerError if there is no such function.
    """
    return FunctionScorer.from_entry(entry)


def _signature_of(function: Function, columns: Sequence[str], what: str) -> tuple[bool, set[str] | None]:
    """Return whether a function has TRL's signature, and the names of its parameters, None if it takes any.

    Raises: ScorerError where it needs a parameter that it is not given, or does not take a column.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a function in C
        return False, None
    trl = COMPLETIONS in signature.parameters
    found = columns_of_signature(signature)
    needed = {name for name, needs in found.items() if needs} - {*columns}
    if trl:
        needed |= {name for name in NOT_GIVEN if _is_needed(signature, name)}
    if needed:
        raise ScorerError(
            f"{what} takes {', '.join(sorted(needed))}, which it is not given; give the parameters a default, or name "
            "columns of the data with columns: [NAME, ...]."
        )
    names = {*signature.parameters}
    if ALL in found:
        return trl, None
    extra = [name for name in columns if name != ALL and name not in names]
    if extra:
        raise ScorerError(f"{what} has no parameter {', '.join(extra)}, and columns names it; take it out.")
    if not trl:
        _require_order([*signature.parameters][:2], what)
    if not trl and len(names) < 2:
        raise ScorerError(f"{what} has {len(names)} parameters; it must take prompts and answers.")
    return trl, names


def _require_order(names: Sequence[str], what: str) -> None:
    """Refuse a function whose first two parameters have names of other things than prompts and answers."""
    expected = (("answer", "completion", "response"), ("prompt", "question", "instruction"))
    for place, (name, others) in enumerate(zip(names, expected, strict=False)):
        if any(word in name.lower() for word in others):
            raise ScorerError(
                f"{what} takes {name} as parameter {place + 1}; the first two parameters are prompts and answers, or "
                "the function has a parameter completions, as in TRL."
            )


def _require_read(function: Function, entry: FunctionEntry) -> None:
    """Refuse a function whose parameters are not those that its source shows.

    Raises: ScorerError.
    """
    try:
        found = columns_of_signature(inspect.signature(function))
    except (TypeError, ValueError):
        return
    if entry.columns is None and found.keys() != entry.columns_read.keys():
        names = ", ".join(name for name in found if name != ALL) or "**kwargs"
        raise ScorerError(
            f"scorer function {entry.function} takes {names}, which its module's source does not show: the function is "
            "defined elsewhere or inside a block. Name the columns that it receives with columns: [NAME, ...], or "
            "columns: []."
        )


def _is_needed(signature: inspect.Signature, name: str) -> bool:
    parameter = signature.parameters.get(name)
    return parameter is not None and parameter.default is parameter.empty


def _numbers(returned: Any) -> Scores | None:
    """Return the scores; None if `returned` is not a sequence of numbers."""
    try:
        if isinstance(returned, str | bytes | Mapping | Set):  # unordered, or not numbers
            return None
        given = list(returned)
        if any(isinstance(score, str | bytes) for score in given):
            return None
        return [None if score is None else float(score) for score in given]
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None
