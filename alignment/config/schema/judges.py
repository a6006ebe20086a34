"""The schema of judges: one class per kind.

The backend of a chat model, which derives from `ChatEntry`, is `alignment/calls/backends/KIND.py`; that of any other
judge is `reward/judges/backends/KIND.py`. To add a kind, write that module and add a class to `JudgeEntry`.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, TypeAdapter

from alignment.config.schema.chat_models import (
    AnthropicKeys,
    CalledEntry,
    EndpointKeys,
    LocalKeys,
    OpenAIKeys,
)
from alignment.config.schema.parts import Function, InputPath, Mark

Mode = Literal["pairwise", "listwise", "pointwise"]  # which is better, in which order, how good


class AnyJudge(CalledEntry):
    """Keys of every judge."""

    FAMILY: ClassVar[str] = "judge"
    PREVIEW: ClassVar[str] = ""  # text of the preview for a judge without a prompt; {} is its label

    weight: float = Field(default=1.0, gt=0, le=10**9)
    """Weight of the judge in a jury."""

    @property
    def mode(self) -> Mode:
        """The kind of question that the judge answers."""
        return getattr(self, "asks", "pairwise")

    @property
    def repeats(self) -> int:
        """Number of times that every question is asked."""
        return getattr(self, "samples", 1)

    def each(self) -> Sequence["AnyJudge"]:
        """Return the judges that make the calls: the members of a jury, else this judge."""
        return [self]


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


class RemoteEntry(EndpointKeys, ChatEntry):
    """Keys of every judge behind an HTTP endpoint."""

    NO_LOGPROBS: ClassVar[str] = ""  # why the API gives no log-probabilities, and what to do; "": it gives them

    @property
    def reads_logprobs(self) -> bool:
        """Whether the log-probabilities of replies are requested."""
        return self.logprobs


class OpenAIEntry(OpenAIKeys, RemoteEntry):
    """A chat model behind an OpenAI-compatible endpoint."""

    kind: Literal["openai"]
    """An OpenAI-compatible endpoint."""
    endpoint: Literal["chat", "systemone"] = "chat"
    """`chat`, or `systemone` for the typed choice of `transformers serve`."""
    response_format: Literal["text", "json_schema"] = "text"
    """`json_schema`: constrain replies to a schema, where the endpoint supports it."""

    @property
    def typed_choices(self) -> bool:
        """Whether the endpoint chooses one of several texts and writes none."""
        return self.endpoint == "systemone"


class AnthropicEntry(AnthropicKeys, RemoteEntry):
    """A Claude model behind Anthropic's Messages API."""

    NO_LOGPROBS: ClassVar[str] = (
        "Anthropic's API gives no log-probabilities; give logprobs: false for verdicts of 1 or 0, and samples with "
        "a temperature above 0 for probabilities from several of them"
    )

    kind: Literal["anthropic"]
    """Anthropic's Messages API."""


class LocalEntry(LocalKeys, ChatEntry):
    """A causal language model in this process."""

    kind: Literal["local"]
    """A language model in this process."""


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
