"""Sources of the scores: reward roles on the policy's base, scorers outside it, or a weighted sum of several."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from alignment.config.schema import PolicyGradientRecipe
from alignment.data.rows import Prompt
from alignment.data.sampled import Record
from alignment.errors import ScorerError
from alignment.manifest import read_manifest
from alignment.ops.ensemble import Aggregate, aggregate_scores
from alignment.policy.model_source import resolve_model
from alignment.policy.tokenizer import load_tokenizer
from alignment.policy.value_model import value_keys
from alignment.run.lineage import fingerprint, require_same


class Scorer(Protocol):
    """Scores answers outside the policy's base: a separate reward model, a function, an endpoint or a judge."""

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str], *, stopped: Sequence[bool]) -> list[float]:
        """Return one score per answer; higher is better.

        Args:
            stopped: whether each answer ended with a stop token, not at `max_new_tokens`.
        """
        ...


@runtime_checkable
class TokenScorer(Protocol):
    """A scorer that can read the sampled tokens in place of the text."""

    def score_sampled(
        self, prompts: Sequence[Prompt], answers: Sequence[str], *, stopped: Sequence[bool], tokens: Sequence[Record]
    ) -> list[float]:
        """Return one score per answer like `Scorer.score`; tokens: of each answer, see `alignment.data.sampled`."""
        ...


@dataclass(frozen=True, slots=True)
class Answered:
    """Answers to score, each with its prompt; `tokens` and `columns` are empty where they are unknown.

    Args:
        stopped: whether each answer ended with a stop token. tokens: of each answer, see `alignment.data.sampled`.
        columns: of each answer's row in the data, by name.
    """

    prompts: Sequence[Prompt]
    answers: Sequence[str]
    stopped: Sequence[bool]
    tokens: Sequence[Record] = ()
    columns: Sequence[Mapping[str, Any]] = ()


@runtime_checkable
class ColumnScorer(Protocol):
    """A scorer that reads columns of the data, and may give some answers no score."""

    def score_rows(self, given: Answered) -> Sequence[float | None]:
        """Return one score per answer, None where the scorer does not apply to the row."""
        ...


OutsideScorer = Scorer | ColumnScorer


@dataclass(frozen=True, slots=True)
class ScorePart:
    """One term of the score: one source, or an ensemble of several aggregated to one number.

    Args:
        sources: names of reward roles on the policy's base, or scorers outside it.
        name: logged as `score_NAME`; "": not logged separately.
        scales: mean and standard deviation of each source's scores, for normalisation; (): no normalisation.
    """

    sources: tuple[str | OutsideScorer, ...]
    name: str = ""
    weight: float = 1.0
    aggregate: Aggregate = "mean"
    uncertainty_penalty: float = 1.0
    scales: tuple[tuple[float, float], ...] = ()

    def of(self, members: Tensor) -> Tensor:
        """Return the unweighted term, (answers,), from the scores of its sources, (sources, answers)."""
        return aggregate_scores(members, self.aggregate, uncertainty_penalty=self.uncertainty_penalty)

    def normalized(self, members: Tensor) -> Tensor:
        """Normalise the sources' scores to mean 0 and standard deviation 1 by their scales, (sources, answers)."""
        if not self.scales:
            return members
        mean, std = torch.tensor(self.scales, dtype=members.dtype).T.unsqueeze(-1)
        return (members - mean) / std


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of a batch of answers, (answers,) float32."""

    total: Tensor
    normalized: Tensor  # the total of normalised terms; equals `total` if no term has a scale
    parts: dict[str, Tensor] = field(default_factory=dict)  # by name, unweighted; NAME_std: over an ensemble's members


@dataclass(frozen=True, slots=True)
class Scoring:
    """The sum of all parts, each times its weight."""

    parts: tuple[ScorePart, ...]

    @classmethod
    def of(cls, scorer: "Scoring | OutsideScorer | None") -> "Scoring":
        """Make a sum of one scorer; None: the reward role."""
        return scorer if isinstance(scorer, Scoring) else cls((ScorePart((scorer or "reward",)),))

    @property
    def roles(self) -> list[str]:
        """The reward roles among the sources."""
        return [source for part in self.parts for source in part.sources if isinstance(source, str)]

    @property
    def outside(self) -> list[tuple[str, OutsideScorer]]:
        """The scorers outside the base, each with its part's name."""
        return [(part.name, source) for part in self.parts for source in part.sources if not isinstance(source, str)]

    def score_outside(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[str],
        *,
        stopped: Sequence[bool],
        tokens: Sequence[Record] = (),
        columns: Sequence[Mapping[str, Any]] = (),
    ) -> list[list[float]]:
        """Return the scores of each scorer of `outside`, one per answer; NaN where a scorer does not apply.

        Args:
            tokens: of each answer, as sampled; (): only the texts are known.
            columns: of each answer's row in the data; (): none were read.

        Raises: ScorerError if a scorer returns anything but one finite number per answer.
        """
        answered = Answered(prompts, answers, stopped, tokens, columns)
        return [checked_scores(scorer, name, answered) for name, scorer in self.outside]

    def combine(self, by_role: Mapping[str, Tensor], outside: Tensor, *, monitored: bool = False) -> Scored:
        """Combine the scores of all sources into one per answer.

        Args:
            by_role: role → (answers,), for each of `roles`. outside: (scorers, answers), ordered as `self.outside`; NaN
                where a scorer does not apply, which adds nothing to the sum.
            monitored: the scores train nothing, so an answer may have none.

        Raises: ScorerError if no scorer applies to an answer that trains.
        """
        remaining = iter(outside)
        total, normalized, parts = torch.zeros(outside.shape[1]), torch.zeros(outside.shape[1]), {}
        applies = torch.zeros(outside.shape[1], dtype=torch.bool)
        for part in self.parts:
            absent = torch.zeros_like(applies)  # NaN of a reward role is a fault, and stays NaN
            found = []
            for source in part.sources:
                found.append(by_role[source] if isinstance(source, str) else next(remaining))
                absent |= found[-1].isnan() if not isinstance(source, str) else False
            members = torch.stack(found)
            scores = part.of(members)
            total = total + part.weight * scores.masked_fill(absent, 0.0)
            normalized = normalized + part.weight * part.of(part.normalized(members)).masked_fill(absent, 0.0)
            applies |= ~absent
            if part.name:
                parts[part.name] = scores
                if len(members) > 1:
                    parts[f"{part.name}_std"] = members.std(0, correction=0)
        if not monitored and not applies.all():
            raise ScorerError(
                f"{int((~applies).sum())} of {len(applies)} answers have no score: every scorer returned None. Add a "
                "scorer that applies to their rows, or leave the rows out."
            )
        return Scored(total, normalized, parts)


LARGEST_SCORE = torch.finfo(torch.float32).max


def checked_scores(scorer: OutsideScorer, name: str, given: Answered) -> list[float]:
    """Return a scorer's scores, NaN where it does not apply.

    Raises: ScorerError if it returns anything but one finite number, or None, per answer.
    """
    prompts, answers = given.prompts, given.answers
    scores: Sequence[float | None]
    if isinstance(scorer, ColumnScorer):
        scores = scorer.score_rows(given)
    elif given.tokens and isinstance(scorer, TokenScorer):
        scores = scorer.score_sampled(prompts, answers, stopped=given.stopped, tokens=given.tokens)
    else:
        scores = scorer.score(prompts, answers, stopped=given.stopped)
    what = f"scorer {name}" if name else "the scorer"
    if len(scores) != len(answers):
        raise ScorerError(f"{what} returned {len(scores)} scores for {len(answers)} answers.")
    for score, answer in zip(scores, answers, strict=True):
        if score is not None and not abs(score) < LARGEST_SCORE:  # False for NaN too
            raise ScorerError(
                f"{what} returned {score} for the answer {answer[:80]!r}; a score is a finite number that float32 "
                "holds."
            )
    return [math.nan if score is None else score for score in scores]


def require_same_tokenizer(recipe: PolicyGradientRecipe, lineage: dict[str, Any]) -> None:
    """Refuse a separate value model whose tokenizer differs from the policy's.

    Raises: LineageError.
    """
    if recipe.value is None or recipe.value.value_model_path is None:
        return
    path = recipe.value.value_model_path
    theirs = read_manifest(path).get("lineage", {})
    if "tokenizer_sha256" not in theirs:
        keys = value_keys(recipe.value)
        theirs = fingerprint(resolve_model(path).base, load_tokenizer(keys))
    own = {"tokenizer_sha256": lineage["tokenizer_sha256"]}
    require_same(theirs, own, f"value model {path}", f"policy {recipe.model_name_or_path}")
