"""A scorer that is a chat model: it rates each answer from 0 to 10 in place of a reward model."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from alignment.calls.caller import Caller
from alignment.calls.chat import EMPTY_REPLY
from alignment.calls.session import JudgeCalls
from alignment.config.schema import PolicyGradientRecipe
from alignment.config.schema.judges import ChatEntry
from alignment.config.schema.scorers import JudgeScorerEntry
from alignment.data.rows import Prompt
from alignment.errors import BudgetError, ScorerError
from alignment.evaluate.judging import Rating, Verdict
from reward.judges.pointwise import PointwiseJudge

T = TypeVar("T")
SHOWN_CHARACTERS = 200


class JudgeScorer:
    """Rates each answer with one question. After a reply without a rating the question is repeated once, then fails."""

    def __init__(self, name: str, judge: PointwiseJudge, *, max_concurrency: int) -> None:
        self.name = name
        self.judge = judge
        self.max_concurrency = max_concurrency
        self.caller = judge.model.caller
        self.where = judge.model.chat.where
        self.identity = {"model": judge.name, "url": self.where, "prompt_sha256": judge.prompt_hash}

    @classmethod
    def from_entry(cls, entry: JudgeScorerEntry, caller: Caller | None = None) -> "JudgeScorer":
        """Read the prompt and open the backend.

        Args:
            caller: makes the calls; None: one without a store that retries as the judge's entry configures.

        Raises: JudgeError if the model, the key or the prompt file is missing, there is no server, or it refuses the
            key.
        """
        judge = entry.judge
        if not isinstance(judge, ChatEntry):
            raise ScorerError(f"scorer {entry.label}: needs a chat model as judge; kind {judge.kind} is not one.")
        pointwise = PointwiseJudge.from_entry(judge, caller or Caller(max_retries=judge.retries))
        return cls(entry.label, pointwise, max_concurrency=judge.at_once(entry.max_concurrency))

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str], *, stopped: Sequence[bool]) -> list[float]:
        """Rate every answer; equal answers to equal prompts are rated once.

        Raises: ScorerError if a call fails after its retries or gives no number; JudgeError if every other call
            would fail alike; BudgetError if the budget does not allow a call.
        """
        return self._rated(prompts, answers, self._rate)

    def ratings(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float | None]:
        """Rate every answer as `score`; None where a reply has no number.

        Raises: ScorerError if a call fails after its retries; JudgeError and BudgetError as `score`.
        """
        return self._rated(prompts, answers, self._rate_or_none)

    def _rated(self, prompts: Sequence[Prompt], answers: Sequence[str], rate: Callable[[Rating], T]) -> list[T]:
        """Call `rate` for every different question at once, as far as the limits allow."""
        render = self.judge.prompt.render
        ratings = [Rating(*pair) for pair in zip(prompts, answers, strict=True)]
        questions = [render(rating.prompt, rating.answer) for rating in ratings]
        different = dict(zip(questions, ratings, strict=True))
        pool = ThreadPoolExecutor(self.max_concurrency)
        try:
            rated = dict(zip(different, pool.map(rate, different.values()), strict=True))
        except BudgetError as error:
            raise BudgetError(
                f"scorer {self.name}: {error} The calls that were made are kept, and the same command with a higher "
                "budget resumes from the last checkpoint."
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after an error no call in flight is waited for
        return [rated[question] for question in questions]

    def _rate(self, rating: Rating) -> float:
        verdict = self.judge.ask(rating)
        if verdict.scores is None:
            raise ScorerError(f"scorer {self.name}: {self.judge.name} {self._fault(verdict)}")
        return verdict.scores[0]

    def _rate_or_none(self, rating: Rating) -> float | None:
        verdict = self.judge.ask(rating)
        if verdict.scores is None and verdict.status == "api_error":
            raise ScorerError(f"scorer {self.name}: {self.judge.name} {self._fault(verdict)}")
        return None if verdict.scores is None else verdict.scores[0]

    def _fault(self, verdict: Verdict) -> str:
        reply = verdict.raw[:SHOWN_CHARACTERS]
        if verdict.status == "refusal":
            return f"at {self.where} refuses to rate an answer: {reply}"
        if verdict.status == "api_error":
            return f"at {self.where} failed: {reply}"
        replies = [verdict.details["first_reply"] or EMPTY_REPLY] if "first_reply" in verdict.details else []
        times = "in two replies" if replies else "in one reply"
        what = " then ".join(repr(reply[:SHOWN_CHARACTERS]) for reply in [*replies, verdict.raw])
        cut = verdict.status == "truncated"
        remedy = "It was cut off: raise judge.max_tokens" if cut else "Use a model that follows the prompt"
        scale = f"{self.judge.scale[0]} to {self.judge.scale[-1]}"
        return f"gave no number from {scale}, {times}: {what}. {remedy}, or give another judge.prompt."


def judge_calls(recipe: PolicyGradientRecipe) -> JudgeCalls:
    """Return what makes the calls of a recipe's judges in this process: their stores and their common budget.

    Raises: JudgeError if the judges' prices cannot be read or are in several currencies.
    """
    entries = [entry for entry in (*recipe.scorers, *recipe.watch_scorers) if isinstance(entry, JudgeScorerEntry)]
    return JudgeCalls.of(
        Path(recipe.output_dir),
        [entry.judge for entry in entries],
        recipe,
        rank=int(os.environ.get("RANK", "0")),
        processes=int(os.environ.get("WORLD_SIZE", "1")),
    )


def build(entry: JudgeScorerEntry, recipe: PolicyGradientRecipe, calls: JudgeCalls) -> JudgeScorer:
    """Return the scorer of a recipe.

    Raises: JudgeError if the model, the key or the prompt file is missing.
    """
    return JudgeScorer.from_entry(entry, calls.caller(entry.judge, entry.label, entry.max_concurrency))
