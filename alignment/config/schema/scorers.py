"""What a recipe may say of a source of scores: one class for each kind.

A scorer is built by the module that has its kind's name, `reward/scorers/KIND.py`; scorers that are reward models stand
on the policy's base where they can. To add one, write that module and add the class here to `ScorerEntry`.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, TypeAdapter

from alignment.config.schema.judges import JudgeEntry
from alignment.config.schema.kinds import Entry
from alignment.config.schema.parts import DAY, InputPath, Name, Words

Aggregate = Literal["mean", "min", "lcb"]


class AnyScorer(Entry):
    """Keys of every source of PPO's scores; `score` is the sum of all, each times its weight."""

    FAMILY: ClassVar[str] = "scorer"

    kind: str
    name: Words | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]+$")  # logged as score_NAME; default: the kind
    weight: float = Field(default=1.0, ge=-(10**9), le=10**9)

    @property
    def label(self) -> str:
        """What logs and errors call it."""
        return self.name or self.kind

    @property
    def models(self) -> list[str]:
        """Return the reward models that it names."""
        return []

    @property
    def aggregation(self) -> tuple[Aggregate, float]:
        """Return how the scores of several models become one: the function and the penalty of lcb."""
        return "mean", 1.0


class ModelScorerEntry(AnyScorer):
    """A reward model."""

    NEEDS: ClassVar[tuple[str, str]] = ("model_name_or_path", "the folder of a reward model")

    kind: Literal["reward_model"]
    model_name_or_path: InputPath
    trust_remote_code: bool = False  # run Python code that the model's folder brings

    @property
    def models(self) -> list[str]:
        """Return the reward model."""
        return [self.model_name_or_path]


class EnsembleEntry(AnyScorer):
    """Several reward models."""

    kind: Literal["ensemble"]
    model_name_or_path: InputPath | None = None  # a run with num_members
    reward_models: list[InputPath] = Field(default_factory=list)
    trust_remote_code: bool = False  # run Python code that the models' folders bring
    aggregate: Aggregate = "mean"  # lcb is mean - uncertainty_penalty * std
    uncertainty_penalty: float = Field(default=1.0, ge=0, le=1000)  # lcb: standard deviations subtracted

    @property
    def models(self) -> list[str]:
        """Return the reward models."""
        return [self.model_name_or_path] if self.model_name_or_path else self.reward_models

    @property
    def aggregation(self) -> tuple[Aggregate, float]:
        """Return the function and the penalty of lcb."""
        return self.aggregate, self.uncertainty_penalty


class FunctionEntry(AnyScorer):
    """A Python function, called with prompts and answers."""

    NEEDS: ClassVar[tuple[str, str]] = ("function", '"module:function"')

    kind: Literal["function"]
    function: Words


class HttpEntry(AnyScorer):
    """A server that answers with scores."""

    NEEDS: ClassVar[tuple[str, str]] = ("url", "the address that scores are asked of")

    kind: Literal["http"]
    url: Name  # where prompts and answers are posted
    api_key_env: Name | None = None  # the environment variable that holds a bearer token
    timeout_seconds: float = Field(default=60.0, gt=0, le=DAY)  # for one answer of the server
    max_retries: int = Field(default=5, ge=0, le=100)  # of a call that failed in a way that may pass


class JudgeScorerEntry(AnyScorer):
    """A model that gives each answer a number from 0 to 10."""

    NEEDS: ClassVar[tuple[str, str]] = ("judge", "a mapping with kind openai and the model's name at the endpoint")

    kind: Literal["judge"]
    judge: JudgeEntry
    max_concurrency: int = Field(default=8, gt=0, le=1024)  # calls in flight


ScorerEntry = Annotated[
    ModelScorerEntry | EnsembleEntry | FunctionEntry | HttpEntry | JudgeScorerEntry, Field(discriminator="kind")
]
_ADAPTER: TypeAdapter[AnyScorer] = TypeAdapter(ScorerEntry)


def scorer_entry(**keys: Any) -> Any:
    """Return the entry of a scorer.

    Raises: pydantic.ValidationError where a key is wrong.
    """
    return _ADAPTER.validate_python(keys)
