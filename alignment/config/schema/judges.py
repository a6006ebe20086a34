"""The schema of judges: one class per kind.

The backend of a chat model, which derives from `ChatEntry`, is `alignment/calls/backends/KIND.py`; that of any other
judge is `reward/judges/backends/KIND.py`. To add a kind, write that module and add a class to `JudgeEntry`.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, TypeAdapter

from alignment.config.schema.kinds import Entry
from alignment.config.schema.parts import DAY, Function, InputPath, Mark, Name, Part, Words

Mode = Literal["pairwise", "listwise", "pointwise"]  # which is better, in which order, how good
RETRIES = 5


class PricesEntry(Part):
    """What a judge's tokens cost."""

    prompt: float = Field(ge=0, le=10**9)
    """Price of a million prompt tokens."""
    completion: float = Field(ge=0, le=10**9)
    """Price of a million reply tokens."""
    currency: Name = "USD"
    """Currency of the prices."""


class AnyJudge(Entry):
    """Keys of every judge."""

    FAMILY: ClassVar[str] = "judge"
    PREVIEW: ClassVar[str] = ""  # text of the preview for a judge without a prompt; {} is its label
    IN_PROCESS: ClassVar[bool] = True  # answers without a request to a server

    kind: str
    name: Words | None = None
    """The judge's name in tables. `null`: the function, model or path."""
    weight: float = Field(default=1.0, gt=0, le=10**9)
    """Weight of the judge in a jury."""

    @classmethod
    def label_of(cls, values: dict[str, Any]) -> str:
        """Return the name of a judge of this kind in tables and stores."""
        named = values.get(cls.NEEDS[0]) if cls.NEEDS else None
        return values.get("name") or (named if isinstance(named, str) else None) or str(values["kind"])

    @property
    def label(self) -> str:
        """The judge's name in tables and stores."""
        return self.label_of(self.__dict__)

    @property
    def mode(self) -> Mode:
        """The kind of question that the judge answers."""
        return getattr(self, "asks", "pairwise")

    @property
    def repeats(self) -> int:
        """Number of times that every question is asked."""
        return getattr(self, "samples", 1)

    @property
    def retries(self) -> int:
        """Number of times that a failed call is repeated."""
        return getattr(self, "max_retries", RETRIES)

    @property
    def full_batch(self) -> int:
        """Batch size of a model in this process; 0 for judges that do not batch."""
        return 0

    def each(self) -> Sequence["AnyJudge"]:
        """Return the judges that make the calls: the members of a jury, else this judge."""
        return [self]

    def at_once(self, max_concurrency: int) -> int:
        """Return the number of concurrent questions, see the function of this name."""
        return at_once([self], max_concurrency)


class RulesEntry(AnyJudge):
    """A Python function."""

    NEEDS: ClassVar[tuple[str, str]] = ("function", '"module:function"')
    PREVIEW: ClassVar[str] = "the function {} compares the answers"

    kind: Literal["rules"]
    """A Python function."""
    function: Function
    """The function, as `module:function`."""


class ReplayEntry(AnyJudge):
    """Recorded verdicts."""

    NEEDS: ClassVar[tuple[str, str]] = ("path", "a file of recorded verdicts")
    PREVIEW: ClassVar[str] = "recorded verdicts of {} are read"

    kind: Literal["replay"]
    """Recorded verdicts."""
    path: InputPath
    """Recorded verdicts: a `labels.jsonl`, or a `result.json` of LLMBar's evaluators."""


class RewardModelEntry(AnyJudge):
    """A reward model."""

    NEEDS: ClassVar[tuple[str, str]] = ("model_name_or_path", "a reward model's folder or Hub id")
    PREVIEW: ClassVar[str] = "the reward model {} scores prompt and answer"

    kind: Literal["reward_model"]
    """A reward model."""
    asks: Mode = "pairwise"
    """`pairwise`: which of two answers is better; `listwise`: the order of several; `pointwise`: a rating of one."""
    model_name_or_path: InputPath | Annotated[list[InputPath], Field(min_length=1)]
    """The model's folder or Hub id. A list of several is an ensemble."""
    trust_remote_code: bool = False
    """Run Python code that the model's folder contains."""
    per_device_eval_batch_size: int = Field(default=16, gt=0, le=10**6)
    """Number of questions answered together."""


class JuryEntry(AnyJudge):
    """Several judges."""

    NEEDS: ClassVar[tuple[str, str]] = ("members", "a list of two or more judges")

    kind: Literal["jury"]
    """Several judges."""
    asks: Mode = "pairwise"
    """`pairwise`: which of two answers is better; `listwise`: the order of several; `pointwise`: a rating of one."""
    members: list["JudgeEntry"] = Field(min_length=1)
    """The judges."""
    on_member_failure: Literal["fail", "leave_out"] = "fail"
    """Whether a member's failed verdict fails the question or is left out."""
    samples: int = Field(default=1, gt=0, le=1000)
    """Number of times that every question is asked; probabilities are averaged."""
    clamp: list[float] | None = Field(default=None, min_length=2, max_length=2)
    """Limit probabilities to this range, such as `[0.4, 0.6]` (https://arxiv.org/abs/2212.08073)."""

    def each(self) -> Sequence[AnyJudge]:
        """Return the members."""
        return self.members


class ChatEntry(AnyJudge):
    """Keys of every chat model."""

    asks: Mode = "pairwise"
    """`pairwise`: which of two answers is better; `listwise`: the order of several; `pointwise`: a rating of one."""
    prompt: Annotated[str, Mark.TEXT_OR_INPUT] | None = None
    """A prompt file. `null`: the package's own."""
    reasoning: bool = False
    """Let the judge reason before its verdict."""
    constitution: InputPath | None = None
    """A YAML file of principles; some are drawn for every question."""
    num_principles: int = Field(default=1, gt=0, le=1000)
    """Number of principles drawn for a question."""
    rubric: InputPath | None = None
    """With `asks: pointwise`: a YAML file of criteria, each of which is one question."""
    repair: bool = True
    """Ask once more about a reply that cannot be parsed."""
    temperature: float = Field(default=0.0, ge=0, le=100)
    """Temperature of replies."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of samples and of drawn principles; each repeat adds 1."""
    samples: int = Field(default=1, gt=0, le=1000)
    """Number of times that every question is asked; probabilities are averaged."""
    max_tokens: int | None = Field(default=None, gt=0, le=10**7)
    """Maximum number of tokens of a reply. `null`: enough for the mode."""
    logprobs: bool = True
    """Read probabilities from the log-probabilities of the verdict's token."""
    min_mass: float = Field(default=0.0, ge=0, lt=1)
    """Minimum probability of the offered labels together. A verdict with less is an error."""
    clamp: list[float] | None = Field(default=None, min_length=2, max_length=2)
    """Limit probabilities to this range, such as `[0.4, 0.6]` (https://arxiv.org/abs/2212.08073)."""

    @property
    def json_replies(self) -> bool:
        """Whether the endpoint constrains replies to a JSON schema."""
        return getattr(self, "response_format", "text") == "json_schema"


class RemoteEntry(ChatEntry):
    """Keys of every chat model behind an HTTP endpoint."""

    NEEDS: ClassVar[tuple[str, str]] = ("model", "its name at the endpoint")
    IN_PROCESS: ClassVar[bool] = False
    VENDOR: ClassVar[str]  # whose endpoint is the default
    NO_LOGPROBS: ClassVar[str] = ""  # why the API gives no log-probabilities, and what to do; "": it gives them
    HOTTEST: ClassVar[float | None] = None  # the highest temperature that the API takes
    KEY_VARIABLE: ClassVar[str]  # the environment variable that holds the key, unless api_key_env names another

    model: Words
    """The model's name at the endpoint."""
    base_url: Words | None = None
    """The endpoint's address. `null`: that of OpenAI or Anthropic."""
    api_key_env: Words | None = None
    """Environment variable that holds the API key. `null`: `OPENAI_API_KEY` or `ANTHROPIC_API_KEY`."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further keys of every request."""
    timeout_seconds: float = Field(default=60.0, gt=0, le=DAY)
    """Time limit of one request."""
    max_retries: int = Field(default=RETRIES, ge=0, le=100)
    """Number of retries of a call that failed temporarily."""
    prices: PricesEntry | InputPath | None = None
    """Prices of a million tokens, or a YAML table of prices by model name."""

    @property
    def key_variable(self) -> str:
        """The environment variable that holds the key."""
        return self.api_key_env or self.KEY_VARIABLE


class OpenAIEntry(RemoteEntry):
    """A chat model behind an OpenAI-compatible endpoint."""

    VENDOR: ClassVar[str] = "OpenAI"
    KEY_VARIABLE: ClassVar[str] = "OPENAI_API_KEY"

    kind: Literal["openai"]
    """An OpenAI-compatible endpoint."""
    endpoint: Literal["chat", "systemone"] = "chat"
    """`chat`, or `systemone` for the typed choice of `transformers serve`."""
    response_format: Literal["text", "json_schema"] = "text"
    """`json_schema`: constrain replies to a schema, where the endpoint supports it."""


class AnthropicEntry(RemoteEntry):
    """A Claude model behind Anthropic's Messages API."""

    VENDOR: ClassVar[str] = "Anthropic"
    KEY_VARIABLE: ClassVar[str] = "ANTHROPIC_API_KEY"
    HOTTEST: ClassVar[float | None] = 1.0
    NO_LOGPROBS: ClassVar[str] = (
        "Anthropic's API gives no log-probabilities; give logprobs: false for verdicts of 1 or 0, and samples with "
        "a temperature above 0 for probabilities from several of them"
    )

    kind: Literal["anthropic"]
    """Anthropic's Messages API."""


class LocalEntry(ChatEntry):
    """A causal language model in this process."""

    NEEDS: ClassVar[tuple[str, str]] = ("model_name_or_path", "a causal language model's folder or Hub id")

    kind: Literal["local"]
    """A language model in this process."""
    model_name_or_path: InputPath
    """The model's folder or Hub id."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Data type of the weights."""
    load_in_4bit: bool = False
    """Hold the weights in 4 bits."""
    chat_template: Annotated[str, Mark.TEXT_OR_INPUT] | None = None
    """A chat template. `null`: the tokenizer's own."""
    trust_remote_code: bool = False
    """Run Python code that the model's folder contains."""
    per_device_eval_batch_size: int = Field(default=16, gt=0, le=10**6)
    """Number of questions answered together."""

    @property
    def full_batch(self) -> int:
        """Questions answered together."""
        return self.per_device_eval_batch_size


JudgeEntry = Annotated[
    RulesEntry | OpenAIEntry | AnthropicEntry | LocalEntry | RewardModelEntry | ReplayEntry | JuryEntry,
    Field(discriminator="kind"),
]
JuryEntry.model_rebuild()
_ADAPTER: TypeAdapter[AnyJudge] = TypeAdapter(JudgeEntry)


def judge_entry(**keys: Any) -> Any:
    """Return the entry of a judge.

    Raises: pydantic.ValidationError if a key is wrong.
    """
    return _ADAPTER.validate_python(keys)


def at_once(judges: Sequence[AnyJudge], max_concurrency: int) -> int:
    """Return the number of concurrent questions: the recipe's, or more, to fill the batches of models in this process.

    One batch is computed while the next one fills. If a judge is an endpoint, the recipe's number is used.
    """
    asked = [each for judge in judges for each in judge.each()]
    if not all(judge.IN_PROCESS for judge in asked):
        return max_concurrency
    return max([max_concurrency, *(2 * judge.full_batch for judge in asked)])
