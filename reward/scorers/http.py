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

import json
import os
import random
import time
import weakref
from collections.abc import Mapping, Sequence

import httpx2

from alignment.bounded_http import MOVED, BoundedClient, ReplyError, at_most, fault_of_address, is_loopback
from alignment.calls.session import JudgeCalls
from alignment.calls.transport import CONNECT_SECONDS, retry_after
from alignment.config.schema import PolicyGradientRecipe
from alignment.config.schema.scorers import HttpEntry
from alignment.data.rows import Prompt
from alignment.errors import JsonError, ScorerError
from alignment.meter import say
from alignment.strict_json import Limits, parse, shown

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses that may be different next time
LONGEST_WAIT_SECONDS = 300.0  # that a server may ask for with Retry-After
REPLY_BYTES, SCORE_BYTES = 2**20, 4096  # of a reply, and for each of its scores
REPLY = Limits(size=2**30, finite=False, digits=1000)  # what is not finite is told as the score that it is
LARGEST_SCORE = 1e15  # its square is a number in single precision, which training computes with
SHOWN_CHARACTERS, SHOWN_SCORE = 200, 60
TOLD_SECONDS = 2.0  # waits from this length on are told


class HttpScorer:
    """Posts `batch_size` answers at a time, one request after another."""

    def __init__(self, entry: HttpEntry, *, batch_size: int) -> None:
        """Check the address and read the key.

        Raises: ScorerError where the address is none, or the variable that should hold the key is empty.
        """
        self.url = _checked_url(entry.url, entry.label)
        self.name, self.batch_size = entry.label, batch_size
        self.timeout_seconds, self.max_retries = entry.timeout_seconds, entry.max_retries
        self.key_variable, self.key = entry.api_key_env, _key(entry)
        self.identity = {"url": self.url}
        self.client = BoundedClient(
            seconds=entry.timeout_seconds,
            connect_seconds=CONNECT_SECONDS,
            largest_bytes=REPLY_BYTES,
            trust_env=not is_loopback(self.url),  # a proxy of the environment cannot reach this machine's own loopback
        )
        weakref.finalize(self, self.client.close).atexit = False  # connections go with the scorer

    @classmethod
    def from_entry(cls, entry: HttpEntry, *, batch_size: int) -> "HttpScorer":
        """Make the scorer and check the connection to its address.

        Raises: ScorerError where nobody listens: better now than after minutes of loading.
        """
        scorer = cls(entry, batch_size=batch_size)
        scorer.check_connection()
        return scorer

    def check_connection(self) -> None:
        """Ask for anything at all; whatever comes back but no connection will do, since few servers answer GET.

        Raises: ScorerError where nobody listens.
        """
        try:
            self.client.get(self.url)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
            raise self._unreachable(error) from None
        except httpx2.TransportError:
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
            scores += self._read(self._post(json.dumps(body).encode(), len(answers[part])), len(answers[part]))
        return scores

    def _post(self, body: bytes, count: int) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        for attempt in range(self.max_retries + 1):
            wait = None
            try:
                with at_most(REPLY_BYTES + SCORE_BYTES * count):
                    response = self.client.post(self.url, content=body, headers=headers)
                if response.is_success:
                    return response.content
                failure, wait = self._status(response), retry_after(response.headers)
            except ReplyError as error:
                raise ScorerError(f"scorer {self.name}: {self.url}: {error}.") from None
            except (httpx2.TimeoutException, httpx2.ConnectError, httpx2.ProxyError) as error:
                failure = self._unreachable(error)
            except httpx2.TransportError as error:
                what = f"the connection to {self.url} broke off: {error or type(error).__name__}"
                failure = ScorerError(f"scorer {self.name}: {what}.")
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
        seconds = backoff if asked is None else asked
        if seconds >= TOLD_SECONDS:
            say(f"{failure} Waits {seconds:.0f} s, then tries again ({attempt + 2} of {self.max_retries + 1}).")
        time.sleep(seconds)

    def _status(self, response: httpx2.Response) -> ScorerError:
        """Say what a status means; raises where the next call would fail alike."""
        code, text = response.status_code, self._clean(response.content)
        said = f"scorer {self.name}: {self.url} answered {code}" + (f": {text}" if text else "") + "."
        if code in PASSING:
            return ScorerError(f"{said} Tried {self.max_retries + 1} times (max_retries).")
        if code in (401, 403):
            where = f"the environment variable {self.key_variable}" if self.key_variable else "a variable, and name it"
            raise ScorerError(f"{said} Put a key that it accepts into {where} (api_key_env).") from None
        if code in MOVED:
            to = self._clean(response.headers.get("location", "no address").encode())
            raise ScorerError(f"{said} It points to {to}; give that as url.") from None
        if code in (404, 405):
            raise ScorerError(f"{said} Check url: it is the whole address that answers POST.") from None
        raise ScorerError(f"{said} The server refuses the request; see docs/ppo.md for what is sent.") from None

    def _unreachable(self, error: httpx2.TransportError) -> ScorerError:
        if isinstance(error, httpx2.TimeoutException):
            what = f"no answer from {self.url} within {self.timeout_seconds:g} seconds (timeout_seconds)"
            return ScorerError(f"scorer {self.name}: {what}.")
        what = str(error) or type(error).__name__
        return ScorerError(f"scorer {self.name}: no connection to {self.url}: {what}. Is it running? Check url.")

    def _read(self, reply: bytes, count: int) -> list[float]:
        """Read the scores out of a reply."""
        expected = (
            f'; {{"scores": [...]}} with {count} finite numbers below {LARGEST_SCORE:g} is expected, one an answer.'
        )
        try:
            told = parse(reply, REPLY)
        except JsonError:
            told = None
        if isinstance(told, Mapping):
            named = [told[name] for name in ("scores", "rewards") if name in told]
            told = named[0] if len(named) == 1 else None
        if not isinstance(told, list):
            raise ScorerError(f"scorer {self.name}: {self.url} answered {self._clean(reply)!r}{expected}")
        scores: list[float] = []
        for item in told:
            score = item.get("score") if isinstance(item, Mapping) else item
            if isinstance(score, bool) or not isinstance(score, int | float) or not abs(score) < LARGEST_SCORE:
                raise ScorerError(
                    f"scorer {self.name}: {self.url} gave the score {str(score)[:SHOWN_SCORE]!r}{expected}"
                )
            scores.append(float(score))
        if len(scores) != count:
            raise ScorerError(f"scorer {self.name}: {self.url} gave {len(scores)} scores{expected}")
        return scores

    def _clean(self, text: bytes) -> str:
        """Cut a reply short and take out the key, which some servers repeat in their errors."""
        decoded = text.decode("utf-8", "replace")
        return (decoded.replace(self.key, "[key]") if self.key else decoded).strip()[:SHOWN_CHARACTERS]


def build(entry: HttpEntry, recipe: PolicyGradientRecipe, calls: JudgeCalls) -> HttpScorer:
    """Return the scorer of a recipe.

    Raises: ScorerError where nobody listens.
    """
    return HttpScorer.from_entry(entry, batch_size=recipe.rollout_eval_batch_size)


def _checked_url(url: str, name: str) -> str:
    fault = fault_of_address(url)
    if fault == "userinfo":
        raise ScorerError(f"scorer {name}: url holds a user name or password; put the key where api_key_env says.")
    if fault:
        raise ScorerError(
            f"scorer {name}: url {shown(url)} is not an address ({fault}); http://localhost:8000/score is one."
        )
    return url


def _key(entry: HttpEntry) -> str:
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
