"""What all HTTP endpoints of judges share: addresses, keys, and which failures may pass.

The official clients of OpenAI and Anthropic have the same errors under the same names.
"""

import contextlib
import email.utils
import ipaddress
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from alignment.config.judge_entry import JudgeEntry
from alignment.errors import JudgeError
from reward.judges.calls import ChatReply
from reward.judges.prompting import well_formed

CONNECT_SECONDS = 10.0
LONGEST_WAIT_SECONDS = 600.0  # that a server may ask for; past that a quota is used up, and a run would seem to hang
# What the transport calls having no connection at all, against losing one.
UNREACHABLE = frozenset({"ConnectError", "ConnectTimeout", "ProxyError", "UnsupportedProtocol"})
PASSING = frozenset({408, 409, 425, 429, 529})  # status codes, beside all from 500, of what may go well next time
BUSY = frozenset({429, 529})
RAW_CHARACTERS = 20_000  # kept of a reply; a flood of text is not worth its room
SHORTEST_KEY = 8  # characters; "none", "EMPTY" or "x" for a local server is no secret, and may stand in any text
NO_KEY = "none"  # what local servers that ask for no key are sent


class Transport:
    """Makes single attempts at an endpoint and tells their failures apart.

    Args:
        errors: the client's package, `openai` or `anthropic`. url: of the endpoint. key: taken out of all texts.
    """

    def __init__(self, entry: JudgeEntry, errors: Any, url: str, key: str) -> None:
        self.entry = entry
        self.errors = errors
        self.url = url
        self.key = key

    def attempt(self, post: Callable[[], str]) -> dict[str, Any] | ChatReply:
        """Return the endpoint's JSON object, or the failure that came instead.

        Raises: JudgeError where every other call would fail alike: no access, no such model, no credit.
        """
        try:
            body = post()
        except self.errors.APIStatusError as error:
            return self.status_error(error)
        except self.errors.APIConnectionError as error:
            if type(error.__cause__).__name__ in UNREACHABLE:
                said = self.unreachable(error)
                return ChatReply("api_error", said, details={"fatal": said}, transient=True)
            if isinstance(error, self.errors.APITimeoutError):
                seconds = self.entry.timeout_seconds
                return ChatReply("api_error", f"no answer within {seconds:g} seconds", transient=True)
            return ChatReply("api_error", self.clean(f"{error} {error.__cause__ or ''}"), transient=True)
        # Some gateways repeat the request's headers in their answers; what follows is kept in the run's folder.
        body = self._without_key(body)
        try:
            parsed = json.loads(body)
        except (ValueError, RecursionError):  # cut off on the way, or the page of a proxy
            return ChatReply("api_error", self.clean(f"not JSON: {body}"), transient=True)
        return parsed if isinstance(parsed, dict) else self.unexpected(parsed)

    def unexpected(self, parsed: Any) -> ChatReply:
        """JSON that is no answer."""
        return ChatReply("api_error", self.clean(f"not a chat completion: {json.dumps(parsed)}"))

    def knock(self, get: Callable[[], object]) -> None:
        """Ask for the list of models; whatever comes back but a refusal will do, since not every server has one.

        Raises: JudgeError where nobody listens, or the key is refused: better now than after hours of sampling.
        """
        try:
            get()
        except self.errors.APIStatusError as error:
            if error.status_code in (401, 403):
                self.status_error(error)
        except self.errors.APIConnectionError as error:
            if type(error.__cause__).__name__ in UNREACHABLE:
                raise JudgeError(self.unreachable(error)) from None

    def status_error(self, error: Any) -> ChatReply:
        """What a status code means; JudgeError where every other call would get it too."""
        variable, model = self.entry.key_variable, self.entry.model
        text = self.clean(f"{error.status_code}: {error.response.text}", 500)
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
    except (KeyError, ValueError, OverflowError):
        return None
    return max(0.0, at - (time.time() if now is None else now))


def key_of(entry: JudgeEntry) -> str:
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
        vendor = "Anthropic" if entry.kind == "anthropic" else "OpenAI"
        raise JudgeError(
            f"the environment variable {entry.key_variable} is not set; put your {vendor} key into it, or set "
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


def is_loopback(base_url: str | None) -> bool:
    """Whether an address is this machine's own, which a proxy of the environment cannot reach."""
    host = urlsplit(base_url or "").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
