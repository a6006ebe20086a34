"""The schema of scorers: one class per kind.

The module `reward/scorers/KIND.py` builds a scorer. Reward models share the policy's base if they are adapters on it.
To add a kind, write that module and add a class to `ScorerEntry`.
"""

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, TypeAdapter

from alignment.config.function_columns import columns_of_function
from alignment.config.schema.judges import JudgeEntry
from alignment.config.schema.kinds import Entry
from alignment.config.schema.parts import DAY, Function, InputPath, Name, Words

Aggregate = Literal["mean", "min", "lcb"]


class AnyScorer(Entry):
    """Keys of every source of PPO's scores; `score` is the sum of all, each times its weight."""

    FAMILY: ClassVar[str] = "scorer"
    IN_PROCESS: ClassVar[bool] = False  # it computes in this process, without a model: tried before a model is loaded

    kind: str
    name: Words | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]+$")
    """The score is logged as `score_NAME`. `null`: the kind."""
    weight: float = Field(default=1.0, ge=-(10**9), le=10**9)
    """Factor of the score in the sum."""

    @property
    def label(self) -> str:
        """What logs and errors call it."""
        return self.name or self.kind

    @property
    def models(self) -> list[str]:
        """Return the reward models that it names."""
        return []

    @property
    def columns_read(self) -> dict[str, bool]:
        """Return the columns of the data that it reads beside the prompt: name → whether it needs the column."""
        return {}

    @property
    def aggregation(self) -> tuple[Aggregate, float]:
        """Return how the scores of several models become one: the function and the penalty of lcb."""
        return "mean", 1.0


class ModelScorerEntry(AnyScorer):
    """A reward model."""

    NEEDS: ClassVar[tuple[str, str]] = ("model_name_or_path", "the folder of a reward model")

    kind: Literal["reward_model"]
    """A reward model."""
    model_name_or_path: InputPath
    """The model's folder or Hub id."""
    trust_remote_code: bool = False
    """Run Python code that the model's folder contains."""

    @property
    def models(self) -> list[str]:
        """Return the reward model."""
        return [self.model_name_or_path]


class EnsembleEntry(AnyScorer):
    """Several reward models."""

    kind: Literal["ensemble"]
    """Several reward models."""
    model_name_or_path: InputPath | None = None
    """A run with `num_members`."""
    reward_models: list[InputPath] = Field(default_factory=list)
    """The models."""
    trust_remote_code: bool = False
    """Run Python code that the models' folders contain."""
    aggregate: Aggregate = "mean"
    """How the members' scores become one. `lcb`: mean - `uncertainty_penalty` * standard deviation."""
    uncertainty_penalty: float = Field(default=1.0, ge=0, le=1000)
    """With `aggregate: lcb`: number of standard deviations subtracted."""

    @property
    def models(self) -> list[str]:
        """Return the reward models."""
        return [self.model_name_or_path] if self.model_name_or_path else self.reward_models

    @property
    def aggregation(self) -> tuple[Aggregate, float]:
        """Return the function and the penalty of lcb."""
        return self.aggregate, self.uncertainty_penalty


class FunctionEntry(AnyScorer):
    """A Python function, called with prompts, answers and columns of the data."""

    NEEDS: ClassVar[tuple[str, str]] = ("function", '"module:function"')
    IN_PROCESS: ClassVar[bool] = True

    kind: Literal["function"]
    """A Python function."""
    function: Function
    """The function, as `module:function`: `f(prompts, answers, COLUMN, ...)`, or as TRL's `reward_funcs`."""
    columns: list[Name] | None = None
    """Columns of the data that the function receives by name. `null`: those that its parameters name, and every column
    if it takes `**kwargs`.
    """
    timeout_seconds: float = Field(default=300.0, gt=0, le=DAY)
    """Time limit of one call, which scores the answers of a rollout."""

    @property
    def columns_read(self) -> dict[str, bool]:
        """Return the columns that the function receives."""
        return columns_of_function(self.function) if self.columns is None else dict.fromkeys(self.columns, True)


class HttpEntry(AnyScorer):
    """A server that answers with scores."""

    NEEDS: ClassVar[tuple[str, str]] = ("url", "the address of a server of scores")

    kind: Literal["http"]
    """A server."""
    url: Name
    """The address that prompts and answers are posted to."""
    api_key_env: Name | None = None
    """Environment variable that holds a bearer token."""
    timeout_seconds: float = Field(default=60.0, gt=0, le=DAY)
    """Time limit of one request."""
    max_retries: int = Field(default=5, ge=0, le=100)
    """Number of retries of a call that failed temporarily."""


class JudgeScorerEntry(AnyScorer):
    """A model that gives each answer a number from 0 to 10."""

    NEEDS: ClassVar[tuple[str, str]] = ("judge", "a mapping with kind openai and the model's name at the endpoint")

    kind: Literal["judge"]
    """A judge."""
    judge: JudgeEntry
    """A judge that rates each answer from 0 to 10."""
    max_concurrency: int = Field(default=8, gt=0, le=1024)
    """Maximum number of calls at the same time."""


class VerifierEntry(AnyScorer):
    """Keys of the rewards that check an answer without a model."""

    IN_PROCESS: ClassVar[bool] = True

    timeout_seconds: float = Field(default=30.0, gt=0, le=DAY)
    """Time limit of one answer, after which the run ends."""


class MathEntry(VerifierEntry):
    """Whether the final answer equals a reference."""

    kind: Literal["math"]
    """Whether the final answer equals a reference: 1 or 0."""
    column: Name = "answer"
    """Column of the data with the reference: a number, LaTeX, or text with `#### ANSWER` or `\\boxed{}`."""

    @property
    def columns_read(self) -> dict[str, bool]:
        """Return the column of the reference."""
        return {self.column: True}


class IFEvalEntry(VerifierEntry):
    """Which instructions of IFEval (https://arxiv.org/abs/2311.07911) an answer follows."""

    kind: Literal["ifeval"]
    """Which instructions of IFEval an answer follows, by the columns `instruction_id_list` and `kwargs`."""
    score: Literal["fraction", "all"] = "fraction"
    """The fraction of the instructions that an answer follows, or 1 if it follows `all` and else 0."""

    @property
    def columns_read(self) -> dict[str, bool]:
        """Return the columns of the data set."""
        return {"instruction_id_list": True, "kwargs": True}


class FormatEntry(VerifierEntry):
    """Whether an answer has a format."""

    kind: Literal["format"]
    """Whether an answer matches a regular expression, or is JSON of a schema: 1 or 0."""
    pattern: Words | None = None
    """A regular expression of Python's `re`, which matches a part of the answer."""
    full_match: bool = False
    """Match the whole answer with `pattern`, without white space at its ends."""
    json_schema: InputPath | None = None
    """A JSON file with a JSON Schema. The answer is JSON, perhaps inside one fence of three backticks."""


class LengthEntry(VerifierEntry):
    """Whether an answer's length is in a range."""

    kind: Literal["length"]
    """1 if an answer's length is in a range, falling to 0 outside."""
    unit: Literal["characters", "words", "sentences"] = "words"
    """What is counted."""
    minimum: int | None = Field(default=None, ge=0, le=10**9)
    """Lower end of the range. `null`: none."""
    maximum: int | None = Field(default=None, ge=0, le=10**9)
    """Upper end of the range. `null`: none."""
    margin: float = Field(default=0.0, ge=0, le=10**9)
    """Distance from the range at which the reward reaches 0."""


ScorerEntry = Annotated[
    ModelScorerEntry
    | EnsembleEntry
    | FunctionEntry
    | HttpEntry
    | JudgeScorerEntry
    | MathEntry
    | IFEvalEntry
    | FormatEntry
    | LengthEntry,
    Field(discriminator="kind"),
]
_ADAPTER: TypeAdapter[AnyScorer] = TypeAdapter(ScorerEntry)


def scorer_entry(**keys: Any) -> Any:
    """Return the entry of a scorer.

    Raises: pydantic.ValidationError if a key is wrong.
    """
    return _ADAPTER.validate_python(keys)


def columns_of(entries: Iterable[AnyScorer]) -> dict[str, bool]:
    """Return the columns of the data that scorers read beside the prompt: name → whether one needs it."""
    found: dict[str, bool] = {}
    for entry in entries:
        for name, needed in entry.columns_read.items():
            found[name] = needed or found.get(name, False)
    return found
