"""Evaluation: its recipe."""

from typing import Annotated, Literal

from pydantic import Field

from alignment.config.schema.calls import CallKeys
from alignment.config.schema.judges import JudgeEntry
from alignment.config.schema.keys import DataKeys, DatasetEntry, ModelKeys, ProxyEntry, SamplingKeys
from alignment.config.schema.lm_tasks import TaskEntry
from alignment.config.schema.parts import InputPath, Name, Part, Words
from alignment.config.schema.recipe import Recipe, Stage
from alignment.config.schema.scorers import ScorerEntry


class Candidate(Part):
    """One policy under evaluation."""

    name: Name
    """The policy's name in tables."""
    model_name_or_path: InputPath
    """The policy: a folder, an adapter, a run directory or a Hub id."""
    proxy: ProxyEntry | None = None
    """A pair of small models that changes the policy's logits."""


class OutsideQuestions(Part):
    """Prompts of another domain, and what scores the answers."""

    name: Name
    """What tables call them."""
    datasets: list[DatasetEntry] = Field(min_length=1)
    """The prompts, with the columns that the scorers read."""
    scorers: list[ScorerEntry] = Field(min_length=1)
    """What scores an answer: `math`, `ifeval`, `format`, `length` or `function`. The score is the weighted sum."""
    max_samples: int | None = Field(default=None, gt=0, le=10**9)
    """Maximum number of prompts, chosen at random with `seed`."""
    max_new_tokens: int | None = Field(default=None, gt=0, le=10**6)
    """Maximum number of tokens of an answer. `null`: that of the recipe."""
    temperature: float = Field(default=0.0, ge=0, le=100)
    """Temperature of sampling. 0: the likeliest token, always."""


class EvaluateRecipe(Recipe, ModelKeys, DataKeys, SamplingKeys, CallKeys):
    """Compare candidates with a baseline (`model_name_or_path`, also the KL's reference) on held-out prompts."""

    STAGE = Stage(
        title="Evaluation",
        help="Compare candidates with a baseline on held-out prompts.",
        makes="results",
        rows="prompts",
        next_step="write a page with `alignment report {parent}`",
        encoder_decoders=True,
        samples=True,
        one_process=True,
        held_out=True,
    )
    stage: Literal["evaluate"]
    candidates: list[Candidate] = Field(min_length=1)
    """The policies to compare with the baseline `model_name_or_path`."""
    baseline_name: Words = "sft"
    """The baseline's name in tables."""
    judges: list[JudgeEntry]
    """The judges that compare each candidate's answers with the baseline's. May be empty if `tasks` are given."""
    reward_model_path: InputPath | Annotated[list[InputPath], Field(min_length=1)] | None = None
    """A reward model that also scores the answers. A list of several is an ensemble."""
    perplexity_datasets: list[DatasetEntry] = Field(default_factory=list)
    """Text of other domains, to measure what the policies forgot."""
    perplexity_max_tokens: int = Field(default=20_000, gt=0, le=10**9)
    """Number of tokens of each of these data sets to read."""
    outside_tasks: list[DatasetEntry] = Field(default_factory=list)
    """Tasks of other domains, to measure what the policies forgot: rows with prompt, chosen and rejected. The score is
    the share of rows whose chosen answer is likelier, per token.
    """
    outside_questions: list[OutsideQuestions] = Field(default_factory=list)
    """Prompts of other domains whose answers are scored, to measure what the policies forgot."""
    tasks: list[TaskEntry] = Field(default_factory=list)
    """Tasks of lm-eval, which all policies answer: names, or mappings with `task`. Needs the extra `tasks`."""
    num_generations: int = Field(default=1, gt=0, le=1024)
    """Answers for each prompt and policy. From 2 on, the reward model is compared with the judges."""
    confidence_level: float = Field(default=0.95, gt=0, lt=1)
    """Level of all confidence intervals."""
    bootstrap_samples: int = Field(default=2_000, gt=0, le=10**5)
    """Number of bootstrap samples of prompts for the intervals."""
    per_device_eval_batch_size: int = Field(default=64, gt=0, le=10**6)
    """Number of answers sampled, or scored, together."""
    num_examples: int = Field(default=8, ge=0, le=10**6)
    """Number of prompts whose answers the report shows side by side."""
