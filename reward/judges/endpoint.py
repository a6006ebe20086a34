"""Talking to an OpenAI-compatible chat endpoint: OpenAI, vLLM, SGLang, Ollama, `transformers serve`, ..."""

import contextlib
import email.utils
import ipaddress
import json
import math
import os
import time
import weakref
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import openai

from alignment.config.schema import JudgeEntry
from alignment.data.rows import Message
from alignment.errors import JudgeError
from reward.judges.calls import About, Caller, ChatReply
from reward.judges.prompting import well_formed

TOP_LOGPROBS = 20  # the most that OpenAI and vLLM give
CONNECT_SECONDS = 10.0
# What the transport calls having no connection at all, against losing one.
UNREACHABLE = frozenset({"ConnectError", "ConnectTimeout", "ProxyError", "UnsupportedProtocol"})
PASSING = frozenset({408, 409, 425, 429, 529})  # status codes, beside all from 500, of what may go well next time
BUSY = frozenset({429, 529})
RAW_CHARACTERS = 20_000  # kept of a reply; a flood of text is not worth its room


class ChatEndpoint:
    """Asks a chat model, through a `Caller` that keeps to limits and retries."""

    def __init__(self, entry: JudgeEntry, client: openai.OpenAI) -> None:
        self.entry = entry
        self.client = client
        self.url = str(client.base_url)
        self._has_logprobs = False  # the endpoint has returned some
        weakref.finalize(self, client.close).atexit = False  # connections go with the endpoint

    @classmethod
    def open(cls, entry: JudgeEntry, *, knock: bool = True) -> "ChatEndpoint":
        """Build the client and knock at the endpoint.

        Raises: JudgeError where the model or the key is missing, nobody listens, or the key is refused: better now
            than after hours of sampling.
        """
        if not entry.model:
            raise JudgeError("judge.model is not set; an openai judge needs the model's name at the endpoint.")
        base_url = _checked_url(entry.base_url)
        client = openai.OpenAI(
            base_url=base_url,
            api_key=_key(entry),
            max_retries=0,  # the caller retries
            timeout=openai.Timeout(entry.timeout_seconds, connect=min(CONNECT_SECONDS, entry.timeout_seconds)),
            # A proxy of the environment cannot reach this machine's own loopback.
            http_client=openai.DefaultHttpxClient(trust_env=False) if _is_loopback(base_url) else None,
        )
        endpoint = cls(entry, client)
        if knock:
            endpoint._knock()
        return endpoint

    def ask(self, messages: list[Message], about: About, caller: Caller) -> ChatReply:
        """Return the reply to `messages`, one that is known or one that comes.

        Raises: JudgeError where every other call would fail alike: no server after all retries, no access, no such
            model, no log-probabilities; BudgetError.
        """
        request = self.request(messages, about.question.repeat)
        reply = caller.call(about, request, lambda: self.send(request))
        if reply.details.get("unreachable"):
            raise JudgeError(reply.raw)
        return reply

    def request(self, messages: list[Message], repeat: int = 0) -> dict[str, Any]:
        """Return what is posted; a repeat, or a sample, is drawn by a seed of its own."""
        # OpenAI's own newer models refuse `max_tokens`; other servers know only that.
        official = (urlsplit(self.url).hostname or "").endswith("openai.com")
        sampled = repeat > 0 or self.entry.temperature > 0
        return {
            "model": self.entry.model,
            "messages": messages,
            "temperature": self.entry.temperature,
            "max_completion_tokens" if official else "max_tokens": self.entry.max_tokens,
            **({"seed": self.entry.seed + repeat} if sampled else {}),
            **({"logprobs": True, "top_logprobs": TOP_LOGPROBS} if self.entry.logprobs else {}),
        }

    def send(self, request: dict[str, Any]) -> ChatReply:
        """Try once.

        Raises: JudgeError where every other call would fail alike: no access, no such model, no log-probabilities.
        """
        try:
            response = self.client.chat.completions.with_raw_response.create(**request)
            body = response.http_response.text
        except openai.APIStatusError as error:
            return self._status_error(error)
        except openai.APIConnectionError as error:
            if type(error.__cause__).__name__ in UNREACHABLE:
                return ChatReply("api_error", self._unreachable(error), details={"unreachable": True}, transient=True)
            if isinstance(error, openai.APITimeoutError):
                return ChatReply(
                    "api_error", f"no answer within {self.entry.timeout_seconds:g} seconds", transient=True
                )
            return ChatReply("api_error", self._clean(f"{error} {error.__cause__ or ''}"), transient=True)
        return self._read(body)

    def _knock(self) -> None:
        """Ask for the list of models; whatever comes back but a refusal will do, since not every server has one."""
        try:
            self.client.models.with_raw_response.list()
        except openai.APIStatusError as error:
            if error.status_code in (401, 403):
                self._status_error(error)
        except openai.APIConnectionError as error:
            if type(error.__cause__).__name__ in UNREACHABLE:
                raise JudgeError(self._unreachable(error)) from None

    def _read(self, body: str) -> ChatReply:
        try:
            parsed = json.loads(body)
        except (ValueError, RecursionError):  # cut off on the way, or the page of a proxy
            return ChatReply("api_error", self._clean(f"not a chat completion: {body}"), transient=True)
        try:
            choice = parsed["choices"][0]
            message = choice["message"]
            reply, finish = message.get("content") or "", choice.get("finish_reason")
            refusal = message.get("refusal")
            if not isinstance(reply, str):
                raise TypeError
            reply = well_formed(reply)
        except (ValueError, LookupError, TypeError, AttributeError):
            return ChatReply("api_error", self._clean(f"not a chat completion: {body}"))
        raw = self._clean(reply)
        details = {"model": parsed.get("model"), "finish_reason": finish, "usage": parsed.get("usage")}
        if refusal or finish == "content_filter":
            return ChatReply("refusal", self._clean(str(refusal or reply)), details=details)
        tokens = self._tokens(choice.get("logprobs")) if self.entry.logprobs and reply else []
        one_token = self.entry.logprobs and self.entry.max_tokens == 1  # that token is all that was asked for
        if finish == "length" and not one_token:
            return ChatReply("truncated", raw, details=details)
        return ChatReply("ok", raw, reply, tokens, details)

    def _tokens(self, logprobs: Any) -> list[dict[str, Any]]:
        """Return the tokens with their log-probabilities; [] where this one reply has none."""
        tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
        if isinstance(tokens, list) and tokens and all(isinstance(token, dict) for token in tokens):
            self._has_logprobs = True
            return tokens
        if self._has_logprobs:
            return []
        raise JudgeError(
            f"{self.url} returned no log-probabilities for model {self.entry.model}, and judge.logprobs is true; "
            "set logprobs: false to take the verdict from the text alone (probability 1 or 0)."
        )

    def _status_error(self, error: openai.APIStatusError) -> ChatReply:
        text = self._clean(f"{error.status_code}: {error.response.text}", 500)
        at = f"{self.url} answered {text}"
        if error.status_code in (401, 403):
            raise JudgeError(
                f"{at}\nPut a key that may use model {self.entry.model} into the environment variable "
                f"{self.entry.api_key_env} (judge.api_key_env)."
            ) from None
        if error.status_code == 404:
            raise JudgeError(
                f"{at}\nNo such address or model: check judge.base_url (it usually ends in /v1) and judge.model "
                f"{self.entry.model}; the key is read from the environment variable {self.entry.api_key_env}."
            ) from None
        if "insufficient_quota" in text:
            raise JudgeError(
                f"{at}\nThe account behind {self.entry.api_key_env} has no credit left; run again when it has."
            ) from None
        if error.status_code in (400, 422) and self.entry.logprobs and "logprob" in text:
            raise JudgeError(f"{at}\nThe endpoint refuses log-probabilities; set logprobs: false.") from None
        headers = error.response.headers
        passing = error.status_code in PASSING or error.status_code >= 500
        return ChatReply(
            "api_error",
            text,
            transient=passing and headers.get("x-should-retry") != "false",
            limited=error.status_code in BUSY,
            retry_after_seconds=retry_after(headers),
        )

    def _unreachable(self, error: openai.APIConnectionError) -> str:
        cause = self._clean(str(error.__cause__ or error), 200)
        return f"no connection to the judge at {self.url}: {cause}. Is it running? Check judge.base_url."

    def _clean(self, text: str, limit: int = RAW_CHARACTERS) -> str:
        """Cut a text short and take out the key, which some servers repeat in their errors."""
        key = self.client.api_key
        return well_formed(text.replace(key, "[key]") if key != NO_KEY else text)[:limit]


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return the seconds that a server asks to be left alone, RFC 9110 section 10.2.3; None where it does not say.

    `retry-after-ms`, which OpenAI and Azure send, is finer than `Retry-After`, whose value is seconds or a date.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        with contextlib.suppress(KeyError, ValueError):
            seconds = float(headers[name]) / unit
            return seconds if 0 <= seconds < math.inf else None
    try:
        at = email.utils.parsedate_to_datetime(headers["retry-after"]).timestamp()
    except (KeyError, ValueError, OverflowError):
        return None
    return max(0.0, at - (time.time() if now is None else now))


NO_KEY = "none"  # what local servers that ask for no key are sent


def _key(entry: JudgeEntry) -> str:
    if not entry.api_key_env.isidentifier():
        raise JudgeError(
            "judge.api_key_env must name an environment variable; what it holds does not look like a name and is not "
            "shown here, in case it is a key."
        )
    key = os.environ.get(entry.api_key_env, "").strip()
    if not key and entry.base_url is None:
        raise JudgeError(
            f"the environment variable {entry.api_key_env} is not set; put your OpenAI key into it, or set "
            "judge.base_url to an endpoint of your own."
        )
    return key or NO_KEY


def _checked_url(base_url: str | None) -> str | None:
    if base_url is None:
        return None
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise JudgeError(f"judge.base_url is not an address ({error}); http://localhost:8000/v1 is one.") from None
    if parts.username or parts.password:
        raise JudgeError(
            "judge.base_url holds a user name or password; put the key into the environment variable that "
            "judge.api_key_env names instead."
        )
    if parts.scheme not in ("http", "https") or not host:
        raise JudgeError(f"judge.base_url is {base_url!r}; it must be an address such as http://localhost:8000/v1.")
    return base_url


def _is_loopback(base_url: str | None) -> bool:
    host = urlsplit(base_url or "").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
