"""Single attempts at a chat endpoint, and which of their failures are temporary.

The official clients of OpenAI and Anthropic have the same errors under the same names.
"""

import json
from collections.abc import Callable
from typing import Any

from alignment.bounded_http import MOVED, BoundedClient, at_most, leads_elsewhere
from alignment.calls import endpoint
from alignment.calls.call import ChatReply
from alignment.calls.endpoint import CONNECT_SECONDS, LONGEST_WAIT_SECONDS, is_temporary, retry_after, without_key
from alignment.calls.replies import LIMITS, ReplyFault, well_formed
from alignment.config.schema.chat_models import EndpointKeys
from alignment.errors import JsonError, JudgeError
from alignment.strict_json import decoded, parse

# Causes of a connection error that mean that there is no server, not that a connection was lost.
UNREACHABLE = frozenset({"ConnectError", "ConnectTimeout", "ProxyError", "UnsupportedProtocol"})
BUSY = frozenset({429, 529})
RAW_CHARACTERS = 20_000  # of a reply, kept in the store
NO_KEY = "none"  # sent to local servers that need no key
REPLY_BYTES, MOST_REPLY_BYTES = 4 * 2**20, 256 * 2**20  # of a short reply, and of any
TOKEN_BYTES, LOGPROBS_BYTES = 256, 8192  # of each of its tokens, without and with twenty alternatives
WITHOUT_LOGPROBS = (
    "set logprobs: false to read the verdict from the text alone (probability 1 or 0). To get probabilities from "
    "several verdicts, also set samples: 5, for example, and a temperature above 0."
)


def client_of(entry: EndpointKeys, base_url: str | None) -> BoundedClient:
    """Return the HTTP client for an endpoint; `timeout_seconds` limits each exchange as a whole."""
    return endpoint.client_of(base_url, entry.timeout_seconds, REPLY_BYTES)


def largest_reply(max_tokens: Any, logprobs: bool) -> int:
    """Return the maximum size in bytes of a reply of `max_tokens` tokens."""
    tokens = max_tokens if isinstance(max_tokens, int) and max_tokens > 0 else 0
    return min(MOST_REPLY_BYTES, REPLY_BYTES + tokens * (LOGPROBS_BYTES if logprobs else TOKEN_BYTES))


def client_arguments(entry: EndpointKeys, package: Any, *, connect: bool) -> dict[str, Any]:
    """Return the arguments of the client of `package`, `openai` or `anthropic`; without `connect` no key is needed.

    Raises: JudgeError if the address is not valid or the key is missing.
    """
    base_url = checked_url(entry)
    return {
        "base_url": base_url,
        "api_key": key_of(entry) if connect else NO_KEY,
        "max_retries": 0,  # the caller retries
        "timeout": package.Timeout(entry.timeout_seconds, connect=min(CONNECT_SECONDS, entry.timeout_seconds)),
        "http_client": client_of(entry, base_url),
    }


class Transport:
    """Makes single attempts at an endpoint and classifies their failures.

    Args:
        errors: the client's package, `openai` or `anthropic`. url: of the endpoint. key: removed from all texts.
    """

    def __init__(self, entry: EndpointKeys, errors: Any, url: str, key: str) -> None:
        self.entry = entry
        self.errors = errors
        self.url = url
        self.key = key

    def attempt(
        self, post: Callable[[], bytes], *, max_tokens: Any, logprobs: bool = False
    ) -> dict[str, Any] | ChatReply:
        """Return the endpoint's JSON object, or the failure as a reply.

        Args:
            max_tokens, logprobs: as in the request; they bound the size of the reply.

        Raises: JudgeError if every other call would fail alike: no access, no such model, no credit.
        """
        try:
            with at_most(largest_reply(max_tokens, logprobs)):
                body = post()
        except self.errors.APIStatusError as error:
            return self.status_error(error)
        except self.errors.APIConnectionError as error:
            if type(error.__cause__).__name__ in UNREACHABLE:
                message = self.unreachable(error)
                return ChatReply("api_error", message, details={"fatal": message}, transient=True)
            if isinstance(error, self.errors.APITimeoutError):
                seconds = self.entry.timeout_seconds
                return ChatReply("api_error", f"no answer within {seconds:g} seconds", transient=True)
            return ChatReply("api_error", self.clean(f"{error} {error.__cause__ or ''}"), transient=True)
        try:
            # Some gateways repeat the request's headers in their replies, which are kept in the run's folder.
            text = without_key(decoded(body), self.key)
            value = parse(text, LIMITS)
        except JsonError as error:  # incomplete, or a proxy's page
            return ChatReply("api_error", self.clean(f"not JSON: {error}: {body[:RAW_CHARACTERS]!r}"), transient=True)
        if isinstance(value, dict):
            return value
        return self.unexpected(value, ReplyFault(f"it is of the type {type(value).__name__}"))

    def unexpected(self, parsed: Any, fault: ReplyFault) -> ChatReply:
        """Return the failure of a reply that is JSON but not a chat completion."""
        return ChatReply("api_error", self.clean(f"not a chat completion: {fault}: {json.dumps(parsed)}"))

    def check_connection(self, get: Callable[[], object]) -> None:
        """Request the list of models; every response except a refusal passes, as some servers have no such list.

        Raises: JudgeError if there is no server, or it refuses the key. A run finds out before it samples for hours.
        """
        try:
            get()
        except self.errors.APIStatusError as error:
            if error.status_code in (401, 403):
                self.status_error(error)
            if error.status_code in MOVED and leads_elsewhere(error.response):
                raise JudgeError(self._redirected(error)) from None
        except self.errors.APIConnectionError as error:
            if type(error.__cause__).__name__ in UNREACHABLE:
                raise JudgeError(self.unreachable(error)) from None

    def status_error(self, error: Any) -> ChatReply:
        """Return the failure that a status code means.

        Raises: JudgeError if every other call would fail with it too.
        """
        status, headers = error.status_code, error.response.headers
        text = self.clean(f"{status}: {error.response.content.decode('utf-8', 'replace')}", 500)
        remedy = self._fatal(status, text)
        wait = retry_after(headers)
        if remedy is None and wait is not None and wait > LONGEST_WAIT_SECONDS:
            remedy = (
                f"The server requests a wait of {wait:.0f} seconds, more than the {LONGEST_WAIT_SECONDS:.0f} that are "
                "allowed; the replies so far are kept, and the same command continues from them later."
            )
        if remedy is not None:
            raise JudgeError(f"{self.url} answered {text}\n{remedy}") from None
        if status in MOVED:
            return ChatReply("api_error", self._redirected(error), transient=True)
        return ChatReply(
            "api_error",
            text,
            transient=is_temporary(status) and headers.get("x-should-retry") != "false",
            limited=status in BUSY,
            retry_after_seconds=wait,
        )

    def _fatal(self, status: int, text: str) -> str | None:
        """Return what to do about a failure that every other call would have too; None for other failures."""
        variable, model, what = self.entry.key_variable, self.entry.model, self.entry.FAMILY
        if status in (401, 403):
            return (
                f"Put a key that may use model {model} into the environment variable {variable} ({what}.api_key_env)."
            )
        if status == 404:
            return (
                f"No such address or model: check {what}.base_url (it usually ends in /v1) and {what}.model {model}; "
                f"the key is read from the environment variable {variable}."
            )
        if "insufficient_quota" in text:
            return f"The account of the key in {variable} has no credit left; add credit and run the command again."
        if status in (400, 422) and self.entry.reads_logprobs and "logprob" in text:
            return f"The endpoint refuses log-probabilities; {WITHOUT_LOGPROBS}"
        return None

    def _redirected(self, error: Any) -> str:
        to = self.clean(error.response.headers.get("location", "no address"), 200)
        return (
            f"{self.url} answered {error.status_code}, a redirect to {to}; redirects are not followed, because the "
            f"prompts would be sent there. If that is the right server, set {self.entry.FAMILY}.base_url to its "
            "address."
        )

    def unreachable(self, error: Exception) -> str:
        """Return the message for an address without a server."""
        cause = self.clean(str(error.__cause__ or error), 200)
        what = self.entry.FAMILY
        return f"no connection to the {what} at {self.url}: {cause}. Is it running? Check {what}.base_url."

    def clean(self, text: str, limit: int = RAW_CHARACTERS) -> str:
        """Return at most `limit` characters of a text, without the key."""
        return well_formed(without_key(text, self.key))[:limit]


def key_of(entry: EndpointKeys) -> str:
    """Read the key from the environment; NO_KEY for an endpoint of the user's own without one.

    Raises: JudgeError as `endpoint.read_key`, or if the vendor's own endpoint is used without a key.
    """
    key = endpoint.read_key(entry.key_variable, at=f"{entry.FAMILY}.", error=JudgeError)
    if not key and entry.base_url is None:
        raise JudgeError(
            f"the environment variable {entry.key_variable} is not set; put your {entry.VENDOR} key into it, or set "
            f"{entry.FAMILY}.base_url to an endpoint of your own."
        )
    return key or NO_KEY


def checked_url(entry: EndpointKeys) -> str | None:
    """Return the endpoint's address as it was given.

    Raises: JudgeError as `endpoint.checked_url`.
    """
    if entry.base_url is None:
        return None
    example, at = "http://localhost:8000/v1", f"{entry.FAMILY}."
    return endpoint.checked_url(entry.base_url, key="base_url", example=example, at=at, error=JudgeError)
