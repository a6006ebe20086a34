"""The http scorer against a real server on loopback that behaves in every way a server can."""

import email.utils
import json
import random
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from alignment.config.schema import scorer_entry
from alignment.errors import ScorerError
from reward.scorers import http
from reward.scorers.http import HttpScorer
from tests.calls.chat_server import Reply, failure
from tests.reward.scorers.score_server import ScoreServer, scores

PROMPTS = ["2 + 2 =", [{"role": "user", "content": "Grüß dich"}], "3"]
ANSWERS = ["4", "Hallo \N{PARTY POPPER}", ""]
KEY = "sk-test-4711-secret"


def scorer_of(url: str, *, batch_size: int = 8, **keys: Any) -> HttpScorer:
    entry = scorer_entry(kind="http", name="rules", url=url, **{"max_retries": 0, "timeout_seconds": 5.0, **keys})
    return HttpScorer.from_entry(entry, batch_size=batch_size)


def ask(behave: Callable[[dict[str, Any], int], Reply], **keys: Any) -> list[float]:
    with ScoreServer(behave) as server:
        return scorer_of(server.url, **keys).score(PROMPTS, ANSWERS, stopped=[True] * 3)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(http.time, "sleep", slept.append)
    return slept


def test_requests_are_sent_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RULES_KEY", KEY)
    with ScoreServer(lambda body, n: scores(*(float(len(answer)) for answer in body["answers"]))) as server:
        found = scorer_of(server.url, batch_size=2, api_key_env="RULES_KEY").score(
            PROMPTS, ANSWERS, stopped=[True, True, False]
        )
    assert found == [1.0, 7.0, 0.0]
    assert server.bodies == [
        {"prompts": PROMPTS[:2], "answers": ANSWERS[:2], "stopped": [True, True]},
        {"prompts": PROMPTS[2:], "answers": ANSWERS[2:], "stopped": [False]},
    ]
    assert [headers["Authorization"] for headers in server.headers] == [f"Bearer {KEY}"] * 2
    assert server.headers[0]["Content-Type"] == "application/json"
    assert server.probes == 1


@pytest.mark.parametrize(
    "reply",
    [
        scores(1, 2.5, -3),
        scores(rewards=[1, 2.5, -3]),
        Reply(b"[1, 2.5, -3]"),
        Reply(b'[{"score": 1, "label": "x"}, {"score": 2.5}, {"score": -3e0}]'),
        scores(scores=[1, 2.5, -3], model="x"),
    ],
)
def test_replies_that_people_send(reply: Reply) -> None:
    assert ask(lambda body, n: reply) == [1.0, 2.5, -3.0]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (scores(1, 2), "gave 2 scores; .* with 3 finite numbers"),
        (scores(1, 2, 3, 4), "gave 4 scores"),
        (Reply(b'{"scores": [1, NaN, 2]}'), "gave the score 'nan'"),
        (Reply(b'{"scores": [1, Infinity, 2]}'), "gave the score 'inf'"),
        (Reply(b'{"scores": [1, 1' + b"0" * 400 + b", 2]}"), "gave the score '10000"),
        (scores(1, "2", 3), "gave the score '2'"),
        (scores(1, None, 3), "gave the score 'None'"),
        (scores(1, True, 3), "gave the score 'True'"),
        (scores(1, [2], 3), "gave the score"),
        (Reply(b'[{"score": 1}, {"value": 2}, {"score": 3}]'), "gave the score 'None'"),
        (scores(score=[1, 2, 3]), r"answered '\{\"score\": \[1, 2, 3\]\}'; .* is expected"),
        (scores(scores=1.0), "answered"),
        (Reply(b""), "answered ''"),
        (Reply(b"null"), "answered 'null'"),
        (Reply(b"<html>hello</html>"), "answered '<html>hello"),
        (Reply(b"\xff\xfe\x00"), "answered"),
        (Reply(b"[" * 100_000), "answered"),
        (Reply(b'{"scores": [1, 2, 3]}', promised_length=900), "connection to .* was lost: peer closed connection"),
        (failure(400, "bad prompt"), "answered 400: .*bad prompt.*refuses the request"),
        (failure(404), "answered 404.*Check url"),
        (failure(405), "answered 405.*Check url"),
        (
            failure(307, Location="http://elsewhere/score"),
            "redirects to http://elsewhere/score; set url to that address",
        ),
        (failure(500, "out of memory"), "answered 500: .*out of memory.*Tried 1 times"),
        (Reply(b"", 503), r"answered 503\. Tried"),
    ],
)
def test_an_invalid_score_is_an_error(reply: Reply, said: str) -> None:
    with pytest.raises(ScorerError, match=rf"(?s)scorer rules: .*{said}"):
        ask(lambda body, n: reply)


def test_a_refused_key_is_named_by_its_variable_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ScorerError, match=r"answered 401: .*a variable, and name it \(api_key_env\)"):
        ask(lambda body, n: failure(401), max_retries=5)
    monkeypatch.setenv("RULES_KEY", KEY)
    with pytest.raises(ScorerError, match=r"answered 403: .*no \[key\]!.*variable RULES_KEY \(api_key_env\)") as error:
        ask(lambda body, n: failure(403, f"no {KEY}!"), api_key_env="RULES_KEY")
    assert KEY not in str(error.value)
    monkeypatch.delenv("RULES_KEY")
    with pytest.raises(ScorerError, match="the environment variable RULES_KEY is not set"):
        scorer_of("http://127.0.0.1:1/", api_key_env="RULES_KEY")
    with pytest.raises(ScorerError, match="not shown here") as error:
        scorer_of("http://127.0.0.1:1/", api_key_env=KEY)
    assert KEY not in str(error.value)


def test_temporary_failures_are_retried(waits: list[float]) -> None:
    def behave(body: dict[str, Any], n: int) -> Reply:
        return {
            1: failure(503),
            2: failure(429, **{"Retry-After": "7"}),
            3: failure(429, **{"Retry-After": email.utils.formatdate(time.time() + 30, usegmt=True)}),
            4: failure(429, **{"Retry-After": "soon"}),
            5: Reply(b"", promised_length=50),
        }.get(n, scores(1, 2, 3))

    assert ask(behave, max_retries=5) == [1.0, 2.0, 3.0]
    assert len(waits) == 5
    assert 0.25 <= waits[0] <= 0.5  # between half of the time that doubles with each attempt, and all of it
    assert 7.0 <= waits[1] <= 7.5  # as requested, and up to half a second more
    assert 27 < waits[2] <= 30.5
    assert 2.0 <= waits[3] <= 4.0
    assert 4.0 <= waits[4] <= 8.0


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 501, 529, 599])
def test_the_statuses_that_are_retried(status: int) -> None:
    assert ask(lambda body, n: failure(status) if n == 1 else scores(1, 2, 3), max_retries=1) == [1.0, 2.0, 3.0]


def test_a_retry_leaves_the_random_state_of_the_run_as_it_was() -> None:
    before = random.getstate()
    ask(lambda body, n: failure(503) if n == 1 else scores(1, 2, 3), max_retries=1)
    assert random.getstate() == before


def test_a_wait_of_hours_is_reported_instead(waits: list[float]) -> None:
    with pytest.raises(ScorerError, match=r"answered 429.*requests a wait of 7200 seconds"):
        ask(lambda body, n: failure(429, **{"Retry-After": "7200"}), max_retries=3)
    assert waits == []


def test_no_server_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/score"
    with pytest.raises(ScorerError, match=rf"no connection to {url}: .*refused.* Is it running\? Check url"):
        scorer_of(url)
    with ScoreServer(lambda body, n: scores(1)) as server:
        scorer = scorer_of(server.url, max_retries=2)
    with pytest.raises(ScorerError, match="no connection to"):  # gone since
        scorer.score(["a"], ["b"], stopped=[True])


def test_a_server_that_does_not_respond_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        scorer = scorer_of(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout_seconds=0.2)
        with pytest.raises(ScorerError, match=r"no answer from .* within 0.2 seconds"):
            scorer.score(["a"], ["b"], stopped=[True])


@pytest.mark.parametrize(
    "url", ["http://user:pw@host/", "ftp://host/x", "http://[::1", "http://host:99999/", "http://host/a b", "localhost"]
)
def test_invalid_addresses(url: str) -> None:
    with pytest.raises(ScorerError, match="scorer rules: url") as error:
        scorer_of(url)
    assert "pw" not in str(error.value)


def test_text_that_utf8_cannot_hold_is_sent_as_json_spells_it() -> None:
    with ScoreServer(lambda body, n: scores(0)) as server:
        scorer_of(server.url).score(["\ud800"], ["x"], stopped=[True])
    assert json.dumps(server.bodies[0]["prompts"]) == '["\\ud800"]'
