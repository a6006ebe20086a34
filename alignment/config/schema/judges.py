"""What a recipe may say of a judge."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from alignment.config.schema.parts import DAY, InputPath, Mark, Name, Part, Words

KEY_VARIABLES = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}


class PricesEntry(Part):
    """What a judge's tokens cost."""

    prompt: float = Field(ge=0, le=10**9)  # per million tokens
    completion: float = Field(ge=0, le=10**9)  # per million tokens
    currency: Name = "USD"


class JudgeEntry(Part):
    """Who judges answers, and how it is asked; `alignment.config.rules.judges` says which keys belong to which kind."""

    kind: Literal["rules", "openai", "anthropic", "local", "reward_model", "replay", "jury"]
    name: Words | None = None  # how tables call it; default: the function, model or path
    asks: Literal["pairwise", "listwise", "pointwise"] = "pairwise"  # which is better, in which order, how good
    weight: float = Field(default=1.0, gt=0, le=10**9)  # in a jury

    function: Words | None = None  # rules: "module:function"
    path: InputPath | None = None  # replay: recorded verdicts: a labels.jsonl, or a result.json of LLMBar's evaluators
    members: list["JudgeEntry"] = Field(default_factory=list)  # jury
    on_member_failure: Literal["fail", "leave_out"] = "fail"  # jury: what one failed verdict means

    model: Words | None = None  # openai, anthropic: the model's name at the endpoint
    base_url: Words | None = None  # openai, anthropic: default is OpenAI's, Anthropic's
    api_key_env: Words | None = None  # the environment variable that holds the key; default OPENAI_API_KEY, ...
    endpoint: Literal["chat", "systemone"] = "chat"  # openai: systemone is `transformers serve`'s typed choice
    extra_body: dict[str, Any] = Field(default_factory=dict)  # openai, anthropic: more keys of every request
    timeout_seconds: float = Field(default=60.0, gt=0, le=DAY)
    max_retries: int = Field(default=5, ge=0, le=100)  # of a call that failed in a way that may pass

    model_name_or_path: InputPath | None = None  # local, reward_model
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"  # local
    load_in_4bit: bool = False  # local
    chat_template: Annotated[str, Mark.TEXT_OR_INPUT] | None = None  # local: in place of the tokenizer's own
    trust_remote_code: bool = False  # local, reward_model: run Python code that the model's folder brings
    per_device_eval_batch_size: int = Field(
        default=16, gt=0, le=10**6
    )  # local, reward_model: questions answered together

    prompt: Annotated[str, Mark.TEXT_OR_INPUT] | None = None  # a prompt file; None: the package's own
    reasoning: bool = False  # the judge thinks aloud before it gives its verdict
    constitution: InputPath | None = None  # a YAML file of principles; some are drawn for every question
    num_principles: int = Field(default=1, gt=0, le=1000)  # constitution: drawn for a question
    rubric: InputPath | None = None  # pointwise: a YAML file of criteria, each of which is asked about
    response_format: Literal["text", "json_schema"] = "text"  # json_schema: where the endpoint holds replies to one
    repair: bool = True  # ask once more about a reply that cannot be read

    temperature: float = Field(default=0.0, ge=0, le=100)
    seed: int = Field(default=0, ge=0, lt=2**31)  # of samples and of drawn principles; each repeat adds one
    samples: int = Field(default=1, gt=0, le=1000)  # times that every question is asked; probabilities are averaged
    max_tokens: int | None = Field(default=None, gt=0, le=10**7)  # of a reply; None: enough for the way of asking
    logprobs: bool = True  # read probabilities from the verdict token's log-probabilities
    min_mass: float = Field(default=0.0, ge=0, lt=1)  # verdicts whose offered labels hold less probability are errors
    clamp: list[float] | None = Field(default=None, min_length=2, max_length=2)  # [0.4, 0.6]: as Constitutional AI
    prices: PricesEntry | InputPath | None = None  # of a million tokens, or a YAML table by model name

    @property
    def label(self) -> str:
        """What tables and stores call it."""
        return self.name or self.function or self.model or self.model_name_or_path or self.path or self.kind

    @property
    def key_variable(self) -> str:
        """The environment variable that holds the key."""
        return self.api_key_env or KEY_VARIABLES.get(self.kind, "")

    def at_once(self, max_concurrency: int) -> int:
        """Questions to have in flight, see the function of this name."""
        return at_once(self.members or [self], max_concurrency)


def at_once(judges: Sequence[JudgeEntry], max_concurrency: int) -> int:
    """Questions to have in flight: what the recipe says, and enough that a model in this process has full batches.

    One batch is answered while the next one gathers. Where an endpoint is asked too, the recipe's number stays.
    """
    asked = [each for judge in judges for each in judge.members or [judge]]
    if any(judge.kind in KEY_VARIABLES for judge in asked):
        return max_concurrency
    return max([max_concurrency, *(2 * judge.per_device_eval_batch_size for judge in asked if judge.kind == "local")])
