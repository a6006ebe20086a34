"""A scorer behind an address: prompts and answers are posted as JSON, scores come back.

    POST url
    Content-Type: application/json
    Authorization: Bearer ...                    where api_key_env names a variable

    {"prompts": ["2 + 2 =", [{"role": "user", "content": "Hi"}]], "answers": ["4", "Hello!"], "stopped": [true, false]}

    200 {"scores": [1.5, -0.25]}

A prompt is text or a list of messages, as in the data. `stopped` is whether each answer ended with a stop token; a
server may ignore it. A reply may also be a list of numbers, a list of {"score": number}, or have the key "rewards", as
other reward servers do. Any other reply is an error, never a score.
"""

import json
import time
import weakref
from collections.abc import Mapping, Sequence

import httpx2

from alignment.bounded_http import MOVED, ReplyError, at_most
from alignment.calls.endpoint import (
    LONGEST_WAIT_SECONDS,
    backoff,
    checked_url,
    client_of,
    is_temporary,
    read_key,
    retry_after,
    without_key,
)
from alignment.calls.session import JudgeCalls
from alignment.config.schema import PolicyGradientRecipe
from alignment.config.schema.scorers import HttpEntry
from alignment.data.rows import Prompt
from alignment.errors import JsonError, ScorerError
from alignment.meter import say
from alignment.strict_json import Limits, parse

REPLY_BYTES, SCORE_BYTES = 2**20, 4096  # of a reply, and for each of its scores
REPLY = Limits(size=2**30, finite=False, digits=1000)  # numbers that are not finite are refused with the score's text
LARGEST_SCORE = 1e15  # its square is a finite float32, in which training computes
SHOWN_CHARACTERS, SHOWN_SCORE = 200, 60
REPORTED_SECONDS = 2.0  # shorter waits are not reported


class HttpScorer:
    """Posts `batch_size` answers at a time, one request after another."""

    def __init__(self, entry: HttpEntry, *, batch_size: int) -> None:
        """Check the address and read the key.

        Raises: ScorerError if the address is not valid, or the variable that should hold the key is empty.
        """
        self.name, self.batch_size = entry.label, batch_size
        at = f"scorer {self.name}: "
        example = "http://localhost:8000/score"
        self.url = checked_url(entry.url, key="url", example=example, at=at, error=ScorerError)
        self.timeout_seconds, self.max_retries = entry.timeout_seconds, entry.max_retries
        self.key_variable = entry.api_key_env
        self.key = read_key(self.key_variable, at=at, error=ScorerError) if self.key_variable else ""
        if self.key_variable and not self.key:
            raise ScorerError(f"{at}the environment variable {self.key_variable} is not set (api_key_env).")
        self.identity = {"url": self.url}
        self.client = client_of(self.url, entry.timeout_seconds, REPLY_BYTES)
        weakref.finalize(self, self.client.close).atexit = False  # connections close with the scorer

    @classmethod
    def from_entry(cls, entry: HttpEntry, *, batch_size: int) -> "HttpScorer":
        """Make the scorer and check the connection to its address, before models are loaded for minutes.

        Raises: ScorerError as `HttpScorer`, or if there is no server.
        """
        scorer = cls(entry, batch_size=batch_size)
        scorer.check_connection()
        return scorer

    def check_connection(self) -> None:
        """Send a GET request; every response passes, since few servers answer GET.

        Raises: ScorerError if there is no server.
        """
        try:
            self.client.get(self.url)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
            raise self._unreachable(error) from None
        except httpx2.TransportError:
            pass  # there is a server

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str], *, stopped: Sequence[bool]) -> list[float]:
        """Request the scores.

        Raises: ScorerError if the server cannot be reached, refuses the request, or replies anything except one finite
            number per answer. Temporary failures are retried `max_retries` times first.
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
        for attempt in range(1, self.max_retries + 2):
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
                what = f"the connection to {self.url} was lost: {error or type(error).__name__}"
                failure = ScorerError(f"scorer {self.name}: {what}.")
            if attempt > self.max_retries:
                raise failure
            self._wait(attempt, wait, failure)
        raise AssertionError("unreachable")

    def _wait(self, attempt: int, requested: float | None, failure: ScorerError) -> None:
        if requested is not None and requested > LONGEST_WAIT_SECONDS:
            raise ScorerError(
                f"{failure} The server requests a wait of {requested:.0f} seconds, more than the "
                f"{LONGEST_WAIT_SECONDS:.0f} that are allowed; run the same command again later."
            )
        seconds = backoff(attempt, requested)
        if seconds >= REPORTED_SECONDS:
            say(f"{failure} Next try ({attempt + 1} of {self.max_retries + 1}) in {seconds:.0f} s.")
        time.sleep(seconds)

    def _status(self, response: httpx2.Response) -> ScorerError:
        """Return the error of a temporary failure; raise that of any other."""
        code, text = response.status_code, self._clean(response.content)
        reply = f"scorer {self.name}: {self.url} answered {code}" + (f": {text}" if text else "") + "."
        if is_temporary(code):
            return ScorerError(f"{reply} Tried {self.max_retries + 1} times (max_retries).")
        if code in (401, 403):
            where = f"the environment variable {self.key_variable}" if self.key_variable else "a variable, and name it"
            raise ScorerError(f"{reply} Put a key that it accepts into {where} (api_key_env).") from None
        if code in MOVED:
            to = self._clean(response.headers.get("location", "no address").encode())
            raise ScorerError(f"{reply} It redirects to {to}; set url to that address.") from None
        if code in (404, 405):
            raise ScorerError(f"{reply} Check url: it is the whole address that answers POST.") from None
        raise ScorerError(f"{reply} The server refuses the request; docs/ppo.md describes the request.") from None

    def _unreachable(self, error: httpx2.TransportError) -> ScorerError:
        if isinstance(error, httpx2.TimeoutException):
            what = f"no answer from {self.url} within {self.timeout_seconds:g} seconds (timeout_seconds)"
            return ScorerError(f"scorer {self.name}: {what}.")
        what = str(error) or type(error).__name__
        return ScorerError(f"scorer {self.name}: no connection to {self.url}: {what}. Is it running? Check url.")

    def _read(self, reply: bytes, count: int) -> list[float]:
        """Return the scores in a reply."""
        expected = (
            f'; {{"scores": [...]}} with {count} finite numbers below {LARGEST_SCORE:g} is expected, one per answer.'
        )
        try:
            listed = parse(reply, REPLY)
        except JsonError:
            listed = None
        if isinstance(listed, Mapping):
            named = [listed[name] for name in ("scores", "rewards") if name in listed]
            listed = named[0] if len(named) == 1 else None
        if not isinstance(listed, list):
            raise ScorerError(f"scorer {self.name}: {self.url} answered {self._clean(reply)!r}{expected}")
        scores: list[float] = []
        for item in listed:
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
        """Return the beginning of a reply, without the key."""
        return without_key(text.decode("utf-8", "replace"), self.key).strip()[:SHOWN_CHARACTERS]


def build(entry: HttpEntry, recipe: PolicyGradientRecipe, calls: JudgeCalls) -> HttpScorer:
    """Return the scorer of a recipe.

    Raises: ScorerError as `HttpScorer.from_entry`.
    """
    return HttpScorer.from_entry(entry, batch_size=recipe.rollout_eval_batch_size)
