"""An HTTP server that a recipe names: its address, API key and client, and when a failed request is repeated.

Judges and the `http` scorer share these functions. `at` begins each message with the place in the recipe, such as
"judge." or "scorer NAME: "; `error` is the class of the errors.
"""

import contextlib
import email.utils
import math
import os
import random
import time
from collections.abc import Mapping

from alignment.bounded_http import BoundedClient, fault_of_address, is_loopback
from alignment.errors import AlignmentError
from alignment.strict_json import shown

CONNECT_SECONDS = 10.0
LONGEST_WAIT_SECONDS = 600.0  # that a server may request; a longer wait means that a quota is used up
BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.5, 30.0  # before the first retry, doubled with each, and the longest
TEMPORARY = frozenset({408, 409, 425, 429, 529})  # status codes below 500 and above that may succeed when repeated
SHORTEST_KEY = 8  # characters; "none", "EMPTY" or "x" for a local server is no secret, and may occur in any text
_random = random.Random()  # a wait must not change the random state of a training run


def client_of(url: str | None, timeout_seconds: float, largest_bytes: int) -> BoundedClient:
    """Return the HTTP client for an endpoint; `timeout_seconds` limits each exchange as a whole."""
    return BoundedClient(
        seconds=timeout_seconds,
        connect_seconds=CONNECT_SECONDS,
        largest_bytes=largest_bytes,
        trust_env=not is_loopback(url),  # a proxy of the environment cannot reach this machine's own loopback
    )


def checked_url(url: str, *, key: str, example: str, at: str, error: type[AlignmentError]) -> str:
    """Return an address as it was given.

    Args:
        key: of the recipe. example: a valid address.

    Raises: `error` if it is not an address, or holds a password.
    """
    fault = fault_of_address(url)
    if fault == "userinfo":
        raise error(
            f"{at}{key} holds a user name or password; put the key into an environment variable and name that as "
            "api_key_env."
        )
    if fault:
        raise error(f"{at}{key} {shown(url)} is not an address ({fault}); {example} is one.")
    return url


def read_key(variable: str, *, at: str, error: type[AlignmentError]) -> str:
    """Return the API key in an environment variable; "" if it is not set.

    Raises: `error` if `variable` is not a valid name, or the key cannot be sent in a header: the client's own error
        would show it.
    """
    if not variable.isidentifier():
        raise error(
            f"{at}api_key_env must name an environment variable; its value does not look like a name and is not shown "
            "here, in case it is a key."
        )
    key = os.environ.get(variable, "").strip()
    if any(not "!" <= character <= "~" for character in key):
        raise error(
            f"the environment variable {variable} does not hold a key: it contains a space, a line break or a "
            "character beyond ASCII. Set it to the key alone."
        )
    return key


def without_key(text: str, key: str) -> str:
    """Replace the key in a text: some servers repeat it in their errors."""
    return text.replace(key, "[key]") if len(key) >= SHORTEST_KEY else text


def is_temporary(status: int) -> bool:
    """Whether a request that failed with this status code may succeed when it is repeated."""
    return status in TEMPORARY or status >= 500


def backoff(attempt: int, retry_after_seconds: float | None) -> float:
    """Return the seconds to wait before the retry after `attempt` (from 1).

    As the server requests and up to half a second more, else a random part of a time that doubles with each attempt.
    """
    if retry_after_seconds is not None:
        return retry_after_seconds + _random.random() * BACKOFF_SECONDS
    longest = min(LONGEST_BACKOFF_SECONDS, BACKOFF_SECONDS * 2 ** min(attempt - 1, 10))
    return longest * (0.5 + _random.random() / 2)


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return the seconds that a server requests before the next request, RFC 9110 section 10.2.3; None without it.

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
