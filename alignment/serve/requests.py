"""Reads the bodies of /v1/chat/completions and /v1/completions."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignment.data.calls import tools_of
from alignment.data.conversations import messages_of
from alignment.data.fields import BadRow, kind_of
from alignment.data.keys import UnreadKey
from alignment.data.rows import Message
from alignment.serve.faults import ApiError
from alignment.serve.fields import Fields
from alignment.strict_json import shown

MOST_TOP = 20  # alternatives of a token, as OpenAI and vLLM give
MOST_STOPS, LONGEST_STOP = 16, 1_000  # texts, and characters of one
MOST_BIASES = 1_024
MOST_PROMPTS = 256  # of one request for completions
SEEDS = 2**63
ALWAYS_IGNORED = ("user", "safety_identifier", "prompt_cache_key", "metadata")


@dataclass(frozen=True, slots=True)
class Settings:
    """How answers are sampled and returned."""

    n: int
    max_tokens: int | None  # None: as many as the context has room for
    temperature: float
    top_p: float
    top_k: int
    seed: int | None
    bias: dict[int, float]
    presence_penalty: float
    frequency_penalty: float
    stop: tuple[str, ...]
    logprobs: int | None
    streams: bool
    include_usage: bool

    @property
    def is_seeded(self) -> bool:
        """Whether the request alone determines the answer."""
        return self.seed is not None or self.temperature == 0

    def seed_or_new(self) -> int:
        """Return the seed, or a new one."""
        return self.seed if self.seed is not None else secrets.randbits(63)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request for answers to messages."""

    model: str
    messages: list[Message]
    tools: str | None  # JSON
    settings: Settings


@dataclass(frozen=True, slots=True)
class TextRequest:
    """A request for continuations of texts, or of token ids."""

    model: str
    prompts: list[str | list[int]]
    echo: bool
    settings: Settings


def chat_request(body: Any) -> ChatRequest:
    """Read the body of a request for a chat completion.

    Raises: ApiError.
    """
    fields = Fields(body)
    model = _model(fields)
    messages = _messages(fields)
    tools = _tools(fields)
    most = fields.whole("max_completion_tokens", None, 1, 2**31)
    older = fields.whole("max_tokens", None, 1, 2**31)
    if most is not None and older is not None and most != older:
        raise ApiError("max_tokens and max_completion_tokens differ; give one.", "max_tokens")
    top = fields.whole("top_logprobs", None, 0, MOST_TOP)
    logprobs = fields.flag("logprobs")
    if top is not None and not logprobs:
        raise ApiError("top_logprobs needs logprobs: true.", "top_logprobs")
    fields.only("response_format", {"type": "text"}, why="answers are text.")
    fields.only("modalities", ["text"], why="answers are text.")
    fields.only("store", False, why="nothing is stored.")
    settings = _settings(fields, most if most is not None else older, (top or 0) if logprobs else None)
    return ChatRequest(model, messages, tools, settings)


def text_request(body: Any) -> TextRequest:
    """Read the body of a request for a completion of texts.

    Raises: ApiError.
    """
    fields = Fields(body)
    model, prompts, echo = _model(fields), _prompts(fields), fields.flag("echo")
    logprobs = fields.whole("logprobs", None, 0, MOST_TOP)
    fields.only("suffix", "", why="text is continued at its end alone.")
    settings = _settings(fields, fields.whole("max_tokens", 16, 0, 2**31), logprobs, best_of=True)
    return TextRequest(model, prompts, echo, settings)


def _settings(fields: Fields, max_tokens: int | None, logprobs: int | None, *, best_of: bool = False) -> Settings:
    n = fields.whole("n", 1, 1, 128)
    if best_of:
        fields.only("best_of", n, why="every answer that is sampled is returned; set n alone.")
    streams = fields.flag("stream")
    options = fields.take("stream_options", dict, "an object", {})
    if options and not streams:
        raise ApiError("stream_options needs stream: true.", "stream_options")
    inner = Fields(options)
    include_usage = inner.flag("include_usage")
    inner.only("include_obfuscation", False, why="chunks are not padded.")
    inner.require_none_left()
    settings = Settings(
        n=n,
        max_tokens=max_tokens,
        temperature=fields.number("temperature", 1.0, 0, 2),
        top_p=_above_zero(fields.number("top_p", 1.0, 0, 1)),
        top_k=max(0, fields.whole("top_k", 0, -1, 2**31 - 1)),
        seed=_seed(fields.whole("seed", None, -SEEDS, SEEDS - 1)),
        bias=_bias(fields),
        presence_penalty=fields.number("presence_penalty", 0.0, -2, 2),
        frequency_penalty=fields.number("frequency_penalty", 0.0, -2, 2),
        stop=_stops(fields),
        logprobs=logprobs,
        streams=streams,
        include_usage=include_usage,
    )
    fields.only("service_tier", "auto", "default", why="there is one.")
    fields.ignore(*ALWAYS_IGNORED)
    fields.require_none_left()
    return settings


def _above_zero(top_p: float) -> float:
    if top_p == 0:
        raise ApiError("top_p is 0, which leaves no token; use temperature 0 for the likeliest.", "top_p")
    return top_p


def _seed(seed: int | None) -> int | None:
    return None if seed is None else seed % SEEDS


def _model(fields: Fields) -> str:
    model = fields.text("model")
    if not model:
        raise ApiError("model is missing; GET /v1/models lists the models.", "model")
    return str(model)


def _messages(fields: Fields) -> list[Message]:
    given = fields.take("messages", list, "a list of messages")
    if given is None:
        raise ApiError("messages is missing.", "messages")
    for place, message in enumerate(given):
        if not isinstance(message, dict):
            raise ApiError(f"messages[{place}] is {kind_of(message)}, not a message.", "messages")
    try:
        return messages_of({"messages": [_without_null(message) for message in given]}, "messages")
    except BadRow as error:
        fault = error.fault if isinstance(error, UnreadKey) else error
        raise ApiError(f"{fault}.", "messages") from None


def _without_null(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message of a client, which sends back what it received: null, and keys that are empty."""
    kept = {key: value for key, value in message.items() if value is not None}
    if message.get("role") == "assistant":
        kept = {key: value for key, value in kept.items() if value not in ([], {}) or key == "content"}
        if "content" not in kept and "tool_calls" not in kept:
            kept["content"] = ""
    return kept


def _tools(fields: Fields) -> str | None:
    given = fields.take("tools", list, "a list of tools", [])
    choice = fields.take("tool_choice", (str, dict), "text or an object", "auto" if given else "none")
    if choice not in ("auto", "none"):
        raise ApiError(f"tool_choice {shown(choice)} is not supported; use auto or none.", "tool_choice")
    fields.only("parallel_tool_calls", True, why="the model decides how many calls it makes.")
    for place, tool in enumerate(given):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ApiError(f"tools[{place}] has no function with a name.", "tools")
    if choice == "none":
        return None
    try:
        return tools_of({"tools": given})
    except BadRow as error:
        raise ApiError(f"{error}.", "tools") from None


def _prompts(fields: Fields) -> list[str | list[int]]:
    given = fields.take("prompt", (str, list), "text, a list of texts, token ids, or a list of lists of token ids")
    if given is None:
        raise ApiError("prompt is missing.", "prompt")
    if isinstance(given, str) or _are_ids(given):
        return [given]
    if not given or len(given) > MOST_PROMPTS:
        raise ApiError(f"prompt has {len(given)} entries; it must have from 1 to {MOST_PROMPTS}.", "prompt")
    for place, prompt in enumerate(given):
        if not isinstance(prompt, str) and not _are_ids(prompt):
            raise ApiError(f"prompt[{place}] is neither text nor a list of token ids.", "prompt", code="invalid_type")
    return list(given)


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(token) is int for token in value)


def _stops(fields: Fields) -> tuple[str, ...]:
    given = fields.take("stop", (str, list), "text or a list of texts", [])
    stops: Sequence[Any] = [given] if isinstance(given, str) else given
    if len(stops) > MOST_STOPS:
        raise ApiError(
            f"stop has {len(stops)} texts; the limit is {MOST_STOPS}.", "stop", code="array_above_max_length"
        )
    for place, stop in enumerate(stops):
        if not isinstance(stop, str) or not 0 < len(stop) <= LONGEST_STOP:
            raise ApiError(f"stop[{place}] is not a text of 1 to {LONGEST_STOP} characters.", "stop")
    return tuple(dict.fromkeys(stops))


def _bias(fields: Fields) -> dict[int, float]:
    given = fields.take("logit_bias", dict, "an object", {})
    if len(given) > MOST_BIASES:
        raise ApiError(f"logit_bias has {len(given)} tokens; the limit is {MOST_BIASES}.", "logit_bias")
    found = {}
    for key, value in given.items():
        if not key.isascii() or not key.isdecimal() or len(key) > 10:
            raise ApiError(f"logit_bias has the key {shown(key)}, which is not a token id.", "logit_bias")
        if isinstance(value, bool) or not isinstance(value, int | float) or not -100 <= value <= 100:
            raise ApiError(f"logit_bias of {key} is {shown(value)}; it must be from -100 to 100.", "logit_bias")
        if int(key) in found:
            raise ApiError(f"logit_bias has the token {int(key)} twice.", "logit_bias")
        found[int(key)] = float(value)
    return found


def tool_names(tools: str | None) -> list[str]:
    """Return the names of a request's tools."""
    return [tool["function"]["name"] for tool in json.loads(tools)] if tools else []
