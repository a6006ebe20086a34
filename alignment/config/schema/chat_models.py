"""Keys of the mappings that name a model to call: judges (`schema/judges.py`) and writers (`schema/writers.py`)."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from alignment.config.schema.kinds import Entry
from alignment.config.schema.parts import DAY, InputPath, Mark, Name, Part, Words

RETRIES = 5


class PricesEntry(Part):
    """What a model's tokens cost."""

    prompt: float = Field(ge=0, le=10**9)
    """Price of a million prompt tokens."""
    completion: float = Field(ge=0, le=10**9)
    """Price of a million reply tokens."""
    currency: Name = "USD"
    """Currency of the prices."""


class CalledEntry(Entry):
    """What callers, stores and budgets read of a mapping that is called: of every judge and every writer."""

    IN_PROCESS: ClassVar[bool] = True  # answers without a request to a server

    kind: str
    name: Words | None = None
    """Its name in tables and stores. `null`: the function, model or path."""

    @classmethod
    def label_of(cls, values: dict[str, Any]) -> str:
        """Return the name of an entry of this kind in tables and stores."""
        named = values.get(cls.NEEDS[0]) if cls.NEEDS else None
        return values.get("name") or (named if isinstance(named, str) else None) or str(values["kind"])

    @property
    def label(self) -> str:
        """Its name in tables and stores."""
        return self.label_of(self.__dict__)

    @property
    def retries(self) -> int:
        """Number of times that a failed call is repeated."""
        return getattr(self, "max_retries", RETRIES)

    @property
    def full_batch(self) -> int:
        """Batch size of a model in this process; 0 for what does not batch."""
        return 0

    def each(self) -> Sequence["CalledEntry"]:
        """Return the entries that make the calls: the members of a jury, else this entry."""
        return [self]

    def at_once(self, max_concurrency: int) -> int:
        """Return the number of concurrent questions, see the function of this name."""
        return at_once([self], max_concurrency)


class EndpointKeys(Part):
    """Keys of a chat model behind an HTTP endpoint."""

    FAMILY: ClassVar[str]  # of the entry, for messages
    NEEDS: ClassVar[tuple[str, str] | None] = ("model", "its name at the endpoint")
    IN_PROCESS: ClassVar[bool] = False
    VENDOR: ClassVar[str]  # whose endpoint is the default
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

    @property
    def typed_choices(self) -> bool:
        """Whether the endpoint chooses one of several texts and writes none."""
        return False

    @property
    def reads_logprobs(self) -> bool:
        """Whether the log-probabilities of replies are requested."""
        return False


class OpenAIKeys(EndpointKeys):
    """Keys of a chat model behind an OpenAI-compatible endpoint."""

    VENDOR: ClassVar[str] = "OpenAI"
    KEY_VARIABLE: ClassVar[str] = "OPENAI_API_KEY"


class AnthropicKeys(EndpointKeys):
    """Keys of a Claude model behind Anthropic's Messages API."""

    VENDOR: ClassVar[str] = "Anthropic"
    KEY_VARIABLE: ClassVar[str] = "ANTHROPIC_API_KEY"
    HOTTEST: ClassVar[float | None] = 1.0


class LocalKeys(Part):
    """Keys of a causal language model in this process."""

    FAMILY: ClassVar[str]  # of the entry, for messages
    NEEDS: ClassVar[tuple[str, str] | None] = (
        "model_name_or_path",
        "a causal language model's folder or Hub id",
    )

    model_name_or_path: InputPath
    """The model's folder or Hub id."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Data type of the weights."""
    load_in_4bit: bool = False
    """Hold the weights in 4 bits."""
    load_in_8bit: bool = False
    """Hold the weights in 8 bits."""
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


def at_once(entries: Sequence[CalledEntry], max_concurrency: int) -> int:
    """Return the number of concurrent questions: the recipe's, or more, to fill the batches of models in this process.

    One batch is computed while the next one fills. If one is an endpoint, the recipe's number is used.
    """
    asked = [each for entry in entries for each in entry.each()]
    if not all(entry.IN_PROCESS for entry in asked):
        return max_concurrency
    return max([max_concurrency, *(2 * entry.full_batch for entry in asked)])
