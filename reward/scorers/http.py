"""A scorer behind an address: prompts and answers are posted as JSON, scores come back.

    POST url
    Content-Type: application/json
    Authorization: Bearer ...                    where api_key_env names a variable

    {"prompts": ["2 + 2 =", [{"role": "user", "content": "Hi"}]], "answers": ["4", "Hello!"], "stopped": [true, false]}

    200 {"scores": [1.5, -0.25]}

A prompt is text or a list of messages, as in the data; `stopped` says of each answer whether it ended by itself or was
cut off: a reward model reads the two differently, and a server that does not may ignore it. A reply may also be a plain
list of numbers, a list of {"score": number}, or name them "rewards", as reward servers do. Anything else is an error,
never a score.
"""

import email.utils
import ipaddress
import json
import math
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException, HTTPResponse, IncompleteRead
from typing import Any
from urllib.parse import urlsplit

from alignment.config.schema import ScorerEntry
from alignment.data.rows import Prompt
from alignment.errors import ScorerError

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses that may be different next time
MOVED = frozenset({301, 302, 303, 307, 308})
LONGEST_WAIT_SECONDS = 300.0  # that a server may ask for with Retry-After
LARGEST_REPLY_BYTES = 2**26
SHOWN_CHARACTERS = 200


class HttpScorer:
    """Posts `batch_size` answers at a time, one request after another."""

    def __init__(self, entry: ScorerEntry, *, batch_size: int) -> None:
        """Check the address and read the key.

        Raises: ScorerError where the address is none, or the variable that should hold the key is empty.
        """
        self.url = _checked_url(entry.url or "", entry.label)
        self.name, self.batch_size = entry.label, batch_size
        self.timeout_seconds, self.max_retries = entry.timeout_seconds, entry.max_retries
        self.key_variable, self.key = entry.api_key_env, _key(entry)
        self.identity = {"url": self.url}
        handlers: list[Any] = [_NoRedirect()]
        if _is_loopback(self.url):  # a proxy of the environment cannot reach this machine's own loopback
            handlers.append(urllib.request.ProxyHandler({}))
        self.opener = urllib.request.build_opener(*handlers)

    @classmethod
    def from_entry(cls, entry: ScorerEntry, *, batch_size: int) -> "HttpScorer":
        """Make the scorer and knock at its address.

        Raises: ScorerError where nobody listens: better now than after minutes of loading.
        """
        scorer = cls(entry, batch_size=batch_size)
        scorer.knock()
        return scorer

    def knock(self) -> None:
        """Ask for anything at all; whatever comes back but no connection will do, since few servers answer GET."""
        try:
            with self.opener.open(self.url, timeout=min(10.0, self.timeout_seconds)):
                pass
        except urllib.error.HTTPError as error:
            error.close()
        except urllib.error.URLError as error:
            raise self._unreachable(error.reason) from None
        except (OSError, HTTPException):
            pass  # somebody is there

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str], *, stopped: Sequence[bool]) -> list[float]:
        """Ask for scores.

        Raises: ScorerError where the server cannot be reached, refuses, or says anything but one finite number an
            answer; a call that failed in a way that may pass is repeated first.
        """
        scores: list[float] = []
        for start in range(0, len(answers), self.batch_size):
            part = slice(start, start + self.batch_size)
            body = {"prompts": list(prompts[part]), "answers": list(answers[part]), "stopped": list(stopped[part])}
            scores += self._read(self._post(json.dumps(body).encode()), len(answers[part]))
        return scores

    def _post(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        for attempt in range(self.max_retries + 1):
            try:
                request = urllib.request.Request(self.url, body, headers, method="POST")
                with self.opener.open(request, timeout=self.timeout_seconds) as response:
                    return _whole(response)
            except urllib.error.HTTPError as error:
                failure, wait = self._status(error), _retry_after(error.headers)
            except HTTPException as error:
                what = f"the connection to {self.url} broke off: {error or type(error).__name__}"
                failure, wait = ScorerError(f"scorer {self.name}: {what}."), None
            except OSError as error:
                failure, wait = self._unreachable(getattr(error, "reason", error)), None
            if attempt == self.max_retries:
                raise failure
            self._wait(attempt, wait, failure)
        raise AssertionError("unreachable")

    def _wait(self, attempt: int, asked: float | None, failure: ScorerError) -> None:
        if asked is not None and asked > LONGEST_WAIT_SECONDS:
            raise ScorerError(
                f"{failure} It asks to wait {asked:.0f} seconds, more than the {LONGEST_WAIT_SECONDS:.0f} that are "
                "waited; run the same command again then."
            )
        backoff = min(8.0, 0.5 * 2**attempt) * random.Random().uniform(0.75, 1.25)  # not the run's own random state
        time.sleep(backoff if asked is None else asked)

    def _status(self, error: urllib.error.HTTPError) -> ScorerError:
        """Say what a status means; raises where the next call would fail alike."""
        with error:
            try:
                text = self._clean(error.read(LARGEST_REPLY_BYTES))
            except (OSError, HTTPException):
                text = ""
        said = f"scorer {self.name}: {self.url} answered {error.code}" + (f": {text}" if text else "") + "."
        if error.code in PASSING:
            return ScorerError(f"{said} Tried {self.max_retries + 1} times (max_retries).")
        if error.code in (401, 403):
            where = f"the environment variable {self.key_variable}" if self.key_variable else "a variable, and name it"
            raise ScorerError(f"{said} Put a key that it accepts into {where} (api_key_env).") from None
        if error.code in MOVED:
            raise ScorerError(f"{said} It points to {error.headers.get('Location')}; give that as url.") from None
        if error.code in (404, 405):
            raise ScorerError(f"{said} Check url: it is the whole address that answers POST.") from None
        raise ScorerError(f"{said} The server refuses the request; see docs/ppo.md for what is sent.") from None

    def _unreachable(self, reason: Any) -> ScorerError:
        if isinstance(reason, TimeoutError):
            what = f"no answer from {self.url} within {self.timeout_seconds:g} seconds (timeout_seconds)"
            return ScorerError(f"scorer {self.name}: {what}.")
        what = str(reason) or type(reason).__name__
        return ScorerError(f"scorer {self.name}: no connection to {self.url}: {what}. Is it running? Check url.")

    def _read(self, reply: bytes, count: int) -> list[float]:
        """Read the scores out of a reply."""
        if len(reply) > LARGEST_REPLY_BYTES:
            raise ScorerError(f"scorer {self.name}: {self.url} sent more than {LARGEST_REPLY_BYTES} bytes.")
        expected = f'; {{"scores": [...]}} with {count} finite numbers is expected, one for each answer.'
        try:
            told = json.loads(reply)
        except (ValueError, RecursionError):
            told = None
        if isinstance(told, Mapping):
            told = told.get("scores", told.get("rewards"))
        if not isinstance(told, list):
            raise ScorerError(f"scorer {self.name}: {self.url} answered {self._clean(reply)!r}{expected}")
        scores: list[float] = []
        for item in told:
            score = item.get("score") if isinstance(item, Mapping) else item
            if isinstance(score, bool) or not isinstance(score, int | float) or not _is_finite(score):
                raise ScorerError(f"scorer {self.name}: {self.url} gave the score {str(score)[:60]!r}{expected}")
            scores.append(float(score))
        if len(scores) != count:
            raise ScorerError(f"scorer {self.name}: {self.url} gave {len(scores)} scores{expected}")
        return scores

    def _clean(self, text: bytes) -> str:
        """Cut a reply short and take out the key, which some servers repeat in their errors."""
        decoded = text.decode("utf-8", "replace")
        return (decoded.replace(self.key, "[key]") if self.key else decoded).strip()[:SHOWN_CHARACTERS]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST becomes a GET without a body, and takes the key to another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _whole(response: HTTPResponse) -> bytes:
    """Read a reply, or as much of it as shows that it is too large.

    Raises: IncompleteRead where it is shorter than its header said, which `read` of a number of bytes lets pass.
    """
    reply = response.read(LARGEST_REPLY_BYTES + 1)
    if response.length and len(reply) <= LARGEST_REPLY_BYTES:
        raise IncompleteRead(reply, response.length)
    return reply


def _is_finite(score: float) -> bool:
    try:
        return math.isfinite(score)
    except OverflowError:  # a whole number that no float can hold
        return False


def _retry_after(headers: Any) -> float | None:
    """Seconds that Retry-After asks for, which may be a number or a date; None where it says nothing sensible."""
    text = str(headers.get("Retry-After") or "")
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _checked_url(url: str, name: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ScorerError(f"scorer {name}: url is not an address ({error}).") from None
    if parts.username or parts.password:
        raise ScorerError(f"scorer {name}: url holds a user name or password; put the key where api_key_env says.")
    if parts.scheme not in ("http", "https") or not host or not url.isascii() or " " in url:
        raise ScorerError(f"scorer {name}: url is {url!r}; it must be an address such as http://localhost:8000/score.")
    return url


def _key(entry: ScorerEntry) -> str:
    if entry.api_key_env is None:
        return ""
    if not entry.api_key_env.isidentifier():
        raise ScorerError(
            f"scorer {entry.label}: api_key_env must name an environment variable; what it holds does not look like a "
            "name and is not shown here, in case it is a key."
        )
    key = os.environ.get(entry.api_key_env, "").strip()
    if not key:
        raise ScorerError(f"scorer {entry.label}: the environment variable {entry.api_key_env} is not set.")
    if not key.isascii() or not key.isprintable():
        raise ScorerError(f"scorer {entry.label}: {entry.api_key_env} holds characters that no HTTP header may.")
    return key


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
