"""What a recipe may say of a judge: one class for each kind.

A judge's backend is the module that has the kind's name: `alignment/calls/backends/KIND.py` for a chat model, which
derives from `ChatEntry`, and `reward/judges/backends/KIND.py` for any other judge. To add one, write that module and
add the class here to `JudgeEntry`.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, TypeAdapter

from alignment.config.schema.kinds import Entry
from alignment.config.schema.parts import DAY, InputPath, Mark, Name, Part, Words

Mode = Literal["pairwise", "listwise", "pointwise"]  # which is better, in which order, how good
RETRIES = 5


class PricesEntry(Part):
    """What a judge's tokens cost."""

    prompt: float = Field(ge=0, le=10**9)  # per million tokens
    completion: float = Field(ge=0, le=10**9)  # per million tokens
    currency: Name = "USD"


class AnyJudge(Entry):
    """Keys of every judge."""

    FAMILY: ClassVar[str] = "judge"
    PREVIEW: ClassVar[str] = ""  # what decides, where the judge reads no text; {} is its label
    IN_PROCESS: ClassVar[bool] = True  # answers without a request to a server

    kind: str
    name: Words | None = None  # how tables call it; default: the function, model or path
    weight: float = Field(default=1.0, gt=0, le=10**9)  # in a jury

    @classmethod
    def label_of(cls, values: dict[str, Any]) -> str:
        """Return what tables and stores call a judge of this kind."""
        named = values.get(cls.NEEDS[0]) if cls.NEEDS else None
        return values.get("name") or (named if isinstance(named, str) else None) or str(values["kind"])

    @property
    def label(self) -> str:
        """What tables and stores call it."""
        return self.label_of(self.__dict__)

    @property
    def mode(self) -> Mode:
        """What kind of question it answers."""
        return getattr(self, "asks", "pairwise")

    @property
    def repeats(self) -> int:
        """How many times every question is asked."""
        return getattr(self, "samples", 1)

    @property
    def retries(self) -> int:
        """How many times a failed call is repeated."""
        return getattr(self, "max_retries", RETRIES)

    @property
    def full_batch(self) -> int:
        """Questions that a model in this process answers together; 0 where it gains nothing from waiting ones."""
        return 0

    def each(self) -> Sequence["AnyJudge"]:
        """Return the judges that make the calls: a jury's members, else this one."""
        return [self]

    def at_once(self, max_concurrency: int) -> int:
        """Questions to have in flight, see the function of this name."""
        return at_once([self], max_concurrency)


class RulesEntry(AnyJudge):
    """A Python function."""

    NEEDS: ClassVar[tuple[str, str]] = ("function", '"module:function"')
    PREVIEW: ClassVar[str] = "the function {} compares the answers"

    kind: Literal["rules"]
    function: Words


class ReplayEntry(AnyJudge):
    """Recorded verdicts."""

    NEEDS: ClassVar[tuple[str, str]] = ("path", "a file of recorded verdicts")
    PREVIEW: ClassVar[str] = "recorded verdicts of {} are read"

    kind: Literal["replay"]
    path: InputPath  # a labels.jsonl, or a result.json of LLMBar's evaluators


class RewardModelEntry(AnyJudge):
    """A reward model."""

    NEEDS: ClassVar[tuple[str, str]] = ("model_name_or_path", "a reward model's folder or Hub id")
    PREVIEW: ClassVar[str] = "the reward model {} scores prompt and answer"

    kind: Literal["reward_model"]
    asks: Mode = "pairwise"
    model_name_or_path: InputPath
    trust_remote_code: bool = False  # run Python code that the model's folder brings
    per_device_eval_batch_size: int = Field(default=16, gt=0, le=10**6)  # questions answered together


class JuryEntry(AnyJudge):
    """Several judges."""

    NEEDS: ClassVar[tuple[str, str]] = ("members", "a list of two or more judges")

    kind: Literal["jury"]
    asks: Mode = "pairwise"
    members: list["JudgeEntry"] = Field(min_length=1)
    on_member_failure: Literal["fail", "leave_out"] = "fail"  # what one failed verdict means
    samples: int = Field(default=1, gt=0, le=1000)  # times that every question is asked; probabilities are averaged
    clamp: list[float] | None = Field(default=None, min_length=2, max_length=2)  # [0.4, 0.6]: as Constitutional AI

    def each(self) -> Sequence[AnyJudge]:
        """Return the members."""
        return self.members


class ChatEntry(AnyJudge):
    """Keys of every chat model."""

    asks: Mode = "pairwise"
    prompt: Annotated[str, Mark.TEXT_OR_INPUT] | None = None  # a prompt file; None: the package's own
    reasoning: bool = False  # the judge thinks aloud before it gives its verdict
    constitution: InputPath | None = None  # a YAML file of principles; some are drawn for every question
    num_principles: int = Field(default=1, gt=0, le=1000)  # constitution: drawn for a question
    rubric: InputPath | None = None  # pointwise: a YAML file of criteria, each of which is asked about
    repair: bool = True  # ask once more about a reply that cannot be read
    temperature: float = Field(default=0.0, ge=0, le=100)
    seed: int = Field(default=0, ge=0, lt=2**31)  # of samples and of drawn principles; each repeat adds one
    samples: int = Field(default=1, gt=0, le=1000)  # times that every question is asked; probabilities are averaged
    max_tokens: int | None = Field(default=None, gt=0, le=10**7)  # of a reply; None: enough for the way of asking
    logprobs: bool = True  # read probabilities from the verdict token's log-probabilities
    min_mass: float = Field(default=0.0, ge=0, lt=1)  # verdicts whose offered labels hold less probability are errors
    clamp: list[float] | None = Field(default=None, min_length=2, max_length=2)  # [0.4, 0.6]: as Constitutional AI

    @property
    def json_replies(self) -> bool:
        """Whether the endpoint holds replies to a JSON schema."""
        return getattr(self, "response_format", "text") == "json_schema"

    @property
    def writes(self) -> bool:
        """Whether the model can write texts, and not only choose between some."""
        return getattr(self, "endpoint", "chat") == "chat"


class RemoteEntry(ChatEntry):
    """Keys of every chat model behind an HTTP endpoint."""

    NEEDS: ClassVar[tuple[str, str]] = ("model", "its name at the endpoint")
    IN_PROCESS: ClassVar[bool] = False
    VENDOR: ClassVar[str]  # whose endpoint is the default
    NO_LOGPROBS: ClassVar[str] = ""  # why the API gives no log-probabilities, and what to do; "": it gives them
    HOTTEST: ClassVar[float | None] = None  # the highest temperature that the API takes
    KEY_VARIABLE: ClassVar[str]  # the environment variable that holds the key, unless api_key_env names another

    model: Words  # the model's name at the endpoint
    base_url: Words | None = None  # default: the vendor's
    api_key_env: Words | None = None  # the environment variable that holds the key
    extra_body: dict[str, Any] = Field(default_factory=dict)  # more keys of every request
    timeout_seconds: float = Field(default=60.0, gt=0, le=DAY)
    max_retries: int = Field(default=RETRIES, ge=0, le=100)  # of a call that failed in a way that may pass
    prices: PricesEntry | InputPath | None = None  # of a million tokens, or a YAML table by model name

    @property
    def key_variable(self) -> str:
        """The environment variable that holds the key."""
        return self.api_key_env or self.KEY_VARIABLE


class OpenAIEntry(RemoteEntry):
    """A chat model behind an OpenAI-compatible endpoint."""

    VENDOR: ClassVar[str] = "OpenAI"
    KEY_VARIABLE: ClassVar[str] = "OPENAI_API_KEY"

    kind: Literal["openai"]
    endpoint: Literal["chat", "systemone"] = "chat"  # systemone is `transformers serve`'s typed choice
    response_format: Literal["text", "json_schema"] = "text"  # json_schema: where the endpoint holds replies to one


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


class LocalEntry(ChatEntry):
    """A causal language model in this process."""

    NEEDS: ClassVar[tuple[str, str]] = ("model_name_or_path", "a causal language model's folder or Hub id")

    kind: Literal["local"]
    model_name_or_path: InputPath
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    load_in_4bit: bool = False
    chat_template: Annotated[str, Mark.TEXT_OR_INPUT] | None = None  # in place of the tokenizer's own
    trust_remote_code: bool = False  # run Python code that the model's folder brings
    per_device_eval_batch_size: int = Field(default=16, gt=0, le=10**6)  # questions answered together

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

    Raises: pydantic.ValidationError where a key is wrong.
    """
    return _ADAPTER.validate_python(keys)


def at_once(judges: Sequence[AnyJudge], max_concurrency: int) -> int:
    """Questions to have in flight: what the recipe says, and enough that a model in this process has full batches.

    One batch is answered while the next one gathers. Where an endpoint is asked too, the recipe's number stays.
    """
    asked = [each for judge in judges for each in judge.each()]
    if not all(judge.IN_PROCESS for judge in asked):
        return max_concurrency
    return max([max_concurrency, *(2 * judge.full_batch for judge in asked)])
