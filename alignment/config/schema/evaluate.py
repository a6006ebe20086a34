"""Evaluation: its recipe."""

from typing import Literal

from pydantic import Field

from alignment.config.schema.judges import JudgeEntry
from alignment.config.schema.keys import DataKeys, DatasetEntry, ModelKeys, SamplingKeys
from alignment.config.schema.parts import Free, InputPath, Name, Part, Words
from alignment.config.schema.recipe import Recipe, Stage


class Candidate(Part):
    """One policy under evaluation."""

    name: Name
    model_name_or_path: InputPath


class EvaluateRecipe(Recipe, ModelKeys, DataKeys, SamplingKeys):
    """Compare candidates with a baseline (`model_name_or_path`, also the KL's reference) on held-out prompts."""

    STAGE = Stage(
        title="Evaluation",
        help="Compare candidates with a baseline on held-out prompts.",
        makes="results",
        rows="prompts",
        samples=True,
        one_process=True,
        held_out=True,
    )
    stage: Literal["evaluate"]
    candidates: list[Candidate] = Field(min_length=1)
    baseline_name: Words = "sft"
    judges: list[JudgeEntry] = Field(min_length=1)
    reward_model_path: InputPath | None = None
    perplexity_datasets: list[DatasetEntry] = Field(default_factory=list)  # text outside the domain
    perplexity_max_tokens: int = Field(default=20_000, gt=0, le=10**9)
    num_generations: int = Field(
        default=1, gt=0, le=1024
    )  # answers per prompt and policy; from 2 the reward model is checked
    max_concurrency: Free[int] = Field(default=8, gt=0, le=1024)  # judge calls in flight
    max_failure_share: Free[float] = Field(default=0.5, ge=0, le=1)  # stop once this share of calls failed
    confidence_level: float = Field(default=0.95, gt=0, lt=1)
    bootstrap_samples: int = Field(default=2_000, gt=0, le=10**5)
    per_device_eval_batch_size: int = Field(default=64, gt=0, le=10**6)
    num_examples: int = Field(default=8, ge=0, le=10**6)  # prompts whose answers the report shows side by side
