"""What all HTTP endpoints of judges share: addresses, keys, and which failures may pass.

The official clients of OpenAI and Anthropic have the same errors under the same names.
"""

import contextlib
import email.utils
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from alignment.bounded_http import MOVED, BoundedClient, at_most, fault_of_address, is_loopback, leads_elsewhere
from alignment.calls.call import ChatReply
from alignment.calls.replies import LIMITS, ReplyFault, well_formed
from alignment.config.schema.judges import RemoteEntry
from alignment.errors import JsonError, JudgeError
from alignment.strict_json import decoded, parse, shown

CONNECT_SECONDS = 10.0
LONGEST_WAIT_SECONDS = 600.0  # that a server may ask for; past that a quota is used up, and a run would seem to hang
# What the transport calls having no connection at all, against losing one.
UNREACHABLE = frozenset({"ConnectError", "ConnectTimeout", "ProxyError", "UnsupportedProtocol"})
PASSING = frozenset({408, 409, 425, 429, 529})  # status codes, beside all from 500, of what may go well next time
BUSY = frozenset({429, 529})
RAW_CHARACTERS = 20_000  # kept of a reply; a flood of text is not worth its room
SHORTEST_KEY = 8  # characters; "none", "EMPTY" or "x" for a local server is no secret, and may stand in any text
NO_KEY = "none"  # what local servers that ask for no key are sent
REPLY_BYTES, MOST_REPLY_BYTES = 4 * 2**20, 256 * 2**20  # of a reply that is short, and of any
TOKEN_BYTES, LOGPROBS_BYTES = 256, 8192  # of each of its tokens, without and with twenty alternatives


def client_of(entry: RemoteEntry, base_url: str | None) -> BoundedClient:
    """Return the HTTP client for an endpoint; `timeout_seconds` bounds each exchange as a whole."""
    return BoundedClient(
        seconds=entry.timeout_seconds,
        connect_seconds=CONNECT_SECONDS,
        largest_bytes=REPLY_BYTES,
        trust_env=not is_loopback(base_url),  # a proxy of the environment cannot reach this machine's own loopback
    )


def largest_reply(max_tokens: Any, logprobs: bool) -> int:
    """Return how many bytes a reply of so many tokens may have."""
    tokens = max_tokens if isinstance(max_tokens, int) and max_tokens > 0 else 0
    return min(MOST_REPLY_BYTES, REPLY_BYTES + tokens * (LOGPROBS_BYTES if logprobs else TOKEN_BYTES))


class Transport:
    """Makes single attempts at an endpoint and tells their failures apart.

    Args:
        errors: the client's package, `openai` or `anthropic`. url: of the endpoint. key: taken out of all texts.
    """

    def __init__(self, entry: RemoteEntry, errors: Any, url: str, key: str) -> None:
        self.entry = entry
        self.errors = errors
        self.url = url
        self.key = key

    def attempt(
        self, post: Callable[[], bytes], *, max_tokens: Any, logprobs: bool = False
    ) -> dict[str, Any] | ChatReply:
        """Return the endpoint's JSON object, or the failure that came instead.

        Args:
            max_tokens, logprobs: as the request has them; they bound how large the reply may be.

        Raises: JudgeError where every other call would fail alike: no access, no such model, no credit.
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
            # Some gateways repeat the request's headers in their answers; what follows is kept in the run's folder.
            text = self._without_key(decoded(body))
            value = parse(text, LIMITS)
        except JsonError as error:  # cut off on the way, or the page of a proxy
            return ChatReply("api_error", self.clean(f"not JSON: {error}: {body[:RAW_CHARACTERS]!r}"), transient=True)
        if isinstance(value, dict):
            return value
        return self.unexpected(value, ReplyFault(f"it is of the type {type(value).__name__}"))

    def unexpected(self, parsed: Any, fault: ReplyFault) -> ChatReply:
        """JSON that is no answer."""
        return ChatReply("api_error", self.clean(f"not a chat completion: {fault}: {json.dumps(parsed)}"))

    def check_connection(self, get: Callable[[], object]) -> None:
        """Request the list of models; any response but a refusal passes, since not every server has that list.

        Raises: JudgeError where nobody listens, or the key is refused: better now than after hours of sampling.
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
        """What a status code means; JudgeError where every other call would get it too."""
        variable, model = self.entry.key_variable, self.entry.model
        text = self.clean(f"{error.status_code}: {error.response.content.decode('utf-8', 'replace')}", 500)
        at = f"{self.url} answered {text}"
        if error.status_code in (401, 403):
            raise JudgeError(
                f"{at}\nPut a key that may use model {model} into the environment variable {variable} "
                "(judge.api_key_env)."
            ) from None
        if error.status_code == 404:
            raise JudgeError(
                f"{at}\nNo such address or model: check judge.base_url (it usually ends in /v1) and judge.model "
                f"{model}; the key is read from the environment variable {variable}."
            ) from None
        if "insufficient_quota" in text:
            raise JudgeError(
                f"{at}\nThe account behind {variable} has no credit left; run again when it has."
            ) from None
        if error.status_code in (400, 422) and self.entry.logprobs and "logprob" in text:
            raise JudgeError(f"{at}\nThe endpoint refuses log-probabilities; {WITHOUT_LOGPROBS}") from None
        if error.status_code in MOVED:
            return ChatReply("api_error", self._redirected(error), transient=True)
        headers = error.response.headers
        wait = retry_after(headers)
        if wait is not None and wait > LONGEST_WAIT_SECONDS:
            raise JudgeError(
                f"{at}\nIt asks to wait {wait:.0f} seconds, more than the {LONGEST_WAIT_SECONDS:.0f} that are waited; "
                "what was answered is kept, and the same command goes on from it then."
            ) from None
        passing = error.status_code in PASSING or error.status_code >= 500
        return ChatReply(
            "api_error",
            text,
            transient=passing and headers.get("x-should-retry") != "false",
            limited=error.status_code in BUSY,
            retry_after_seconds=wait,
        )

    def _redirected(self, error: Any) -> str:
        to = self.clean(error.response.headers.get("location", "no address"), 200)
        return (
            f"{self.url} answered {error.status_code}, a redirect to {to}; no redirect is followed, since the answers "
            "would go there. Where that is the right server, give its address as judge.base_url."
        )

    def unreachable(self, error: Exception) -> str:
        """Say that nobody listens."""
        cause = self.clean(str(error.__cause__ or error), 200)
        return f"no connection to the judge at {self.url}: {cause}. Is it running? Check judge.base_url."

    def clean(self, text: str, limit: int = RAW_CHARACTERS) -> str:
        """Cut a text short and take out the key, which some servers repeat in their errors."""
        return well_formed(self._without_key(text))[:limit]

    def _without_key(self, text: str) -> str:
        return text.replace(self.key, "[key]") if len(self.key) >= SHORTEST_KEY else text


WITHOUT_LOGPROBS = (
    "set logprobs: false to take the verdict from the text alone (probability 1 or 0), and beside it samples: 5, say, "
    "with a temperature above 0 to have probabilities from that many verdicts."
)


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
    except (KeyError, ValueError, TypeError, OverflowError, OSError):
        return None
    return max(0.0, at - (time.time() if now is None else now))


def key_of(entry: RemoteEntry) -> str:
    """Read the key from the environment; NO_KEY where an endpoint of one's own may need none.

    Raises: JudgeError where the variable's name is none, what it holds cannot be sent in a header (the client's own
        error would show it), or the vendor's own endpoint is asked without a key.
    """
    if not entry.key_variable.isidentifier():
        raise JudgeError(
            "judge.api_key_env must name an environment variable; what it holds does not look like a name and is not "
            "shown here, in case it is a key."
        )
    key = os.environ.get(entry.key_variable, "").strip()
    if not key and entry.base_url is None:
        raise JudgeError(
            f"the environment variable {entry.key_variable} is not set; put your {entry.VENDOR} key into it, or set "
            "judge.base_url to an endpoint of your own."
        )
    if any(not "!" <= character <= "~" for character in key):
        raise JudgeError(
            f"the environment variable {entry.key_variable} does not hold a key: there is a space, a line break or a "
            "letter beyond ASCII in it. Put the key there, and nothing else."
        )
    return key or NO_KEY


def checked_url(base_url: str | None) -> str | None:
    """Return an address as it was given.

    Raises: JudgeError where it is none, or holds a password.
    """
    if base_url is None:
        return None
    fault = fault_of_address(base_url)
    if fault == "userinfo":
        raise JudgeError(
            "judge.base_url holds a user name or password; put the key into the environment variable that "
            "judge.api_key_env names instead."
        )
    if fault:
        raise JudgeError(
            f"judge.base_url {shown(base_url)} is not an address ({fault}); http://localhost:8000/v1 is one."
        )
    return base_url
