"""Every client of a judge or scorer: no redirect is followed, and time and memory are bounded."""

import json
import time

import pytest

from alignment.calls.transport import LOGPROBS_BYTES, MOST_REPLY_BYTES, REPLY_BYTES, largest_reply
from alignment.config.schema import judge_entry, scorer_entry
from alignment.errors import JudgeError, ScorerError
from alignment.evaluate.judging import Comparison
from reward.judges import build_judge
from reward.scorers.http import HttpScorer
from tests.calls.chat_server import ChatServer, completion, failure
from tests.raw_server import HEAD, RawServer, for_ever, read_request
from tests.reward.scorers.score_server import ScoreServer, scores
from tests.test_bounded_http import CHUNKED, DRIPS, FLOODS, PATIENCE

QUESTION = Comparison("p", "secret answer", "b")
KINDS = ("openai", "anthropic")


def judge_of(kind, url, **keys):
    if kind == "anthropic":
        pytest.importorskip("anthropic")
        url = url.removesuffix("/v1")
    keys = {"logprobs": False, "max_retries": 0, "timeout_seconds": 5.0, "api_key_env": "MY_KEY", **keys}
    return build_judge(judge_entry(kind=kind, model="toy", base_url=url, **keys))


def after_the_probe(script):
    """A server that answers the connection check and then does as the script says."""

    def serve(connection):
        if b"/models" in read_request(connection).split(b"\r\n")[0]:
            yield b"HTTP/1.1 404 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
            return
        yield from script(Read(connection))

    return serve


class Read:
    """A connection whose request has been read."""

    def __init__(self, connection):
        self.connection = connection

    def recv(self, size):
        return b"POST / HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("kind", KINDS)
def test_a_judge_that_moves_gets_no_answers_and_gives_no_label(kind, status):
    with ChatServer(lambda p, n: completion("A")) as other:
        moved = failure(status, Location=f"{other.url}/chat/completions")
        with ChatServer(lambda p, n: moved) as server:
            verdict = judge_of(kind, server.url).ask(QUESTION)
        assert (verdict.probability, verdict.status) == (None, "api_error")
        assert f"answered {status}, a redirect to {other.url}" in verdict.raw
        assert other.prompts == other.probes == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_judge_at_a_redirect_is_refused_before_the_first_call(kind):
    with ChatServer(lambda p, n: completion("A")) as server:
        server.probe_reply = lambda: failure(307, Location="https://elsewhere.example/v1/models")
        with pytest.raises(JudgeError, match=r"redirect to https://elsewhere\.example.*set judge\.base_url"):
            judge_of(kind, server.url)
        server.probe_reply = lambda: failure(307, Location="/v1/models/")  # another path of the same server
        judge_of(kind, server.url)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_scorer_that_moves_gets_no_answers(status):
    with (
        ScoreServer(lambda body, n: scores(1.0)) as other,
        ScoreServer(lambda body, n: failure(status, Location=other.url)) as server,
    ):
        scorer = HttpScorer.from_entry(scorer_entry(kind="http", url=server.url, max_retries=0), batch_size=1)
        with pytest.raises(ScorerError, match="redirects to"):
            scorer.score(["p"], ["a"], stopped=[True])
        assert other.bodies == []


@pytest.mark.parametrize("drip", ["nothing at all", "headers", "a body of known length", "trailers"])
@pytest.mark.parametrize("kind", [*KINDS, "http"])
def test_the_time_out_bounds_the_whole_reply(kind, drip):
    with RawServer(after_the_probe(DRIPS[drip])) as server:
        start = time.monotonic()
        if kind == "http":
            entry = scorer_entry(kind="http", url=f"{server.url}/score", timeout_seconds=0.5, max_retries=0)
            with pytest.raises(ScorerError, match=r"no answer from .* within 0\.5 seconds"):
                HttpScorer(entry, batch_size=1).score(["p"], ["a"], stopped=[True])
        else:
            verdict = judge_of(kind, server.url, timeout_seconds=0.5).ask(QUESTION)
            assert (verdict.probability, verdict.status) == (None, "api_error")
            assert verdict.raw == "no answer within 0.5 seconds"
        assert time.monotonic() - start < PATIENCE


@pytest.mark.parametrize("flood", ["chunks", "a bomb in gzip"])
@pytest.mark.parametrize("kind", [*KINDS, "http"])
def test_a_reply_without_end_is_an_error(kind, flood):
    with RawServer(after_the_probe(FLOODS[flood])) as server:
        if kind == "http":
            entry = scorer_entry(kind="http", url=f"{server.url}/score", max_retries=0)
            with pytest.raises(ScorerError, match=r"the reply is larger than 1\.0 MiB"):
                HttpScorer(entry, batch_size=1).score(["p"], ["a"], stopped=[True])
        else:
            verdict = judge_of(kind, server.url).ask(QUESTION)
            assert (verdict.probability, verdict.status) == (None, "api_error")
            assert "the reply is larger than 4.0 MiB" in verdict.raw


def test_a_server_that_drips_at_the_connection_check_counts_as_there():
    with RawServer(for_ever(CHUNKED, b"1\r\n \r\n", 0.05)) as server:
        start = time.monotonic()
        judge_of("openai", server.url, timeout_seconds=0.5)
        HttpScorer.from_entry(scorer_entry(kind="http", url=server.url, timeout_seconds=0.5), batch_size=1)
        assert time.monotonic() - start < PATIENCE


def test_the_request_determines_the_maximum_size_of_a_reply():
    assert largest_reply(16, True) == REPLY_BYTES + 16 * LOGPROBS_BYTES
    assert largest_reply(10**9, False) == MOST_REPLY_BYTES
    assert [largest_reply(odd, True) for odd in (None, "16", -1, 1.5, [])] == [REPLY_BYTES] * 5


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"scores": [1], "rewards": [2]}', "answered"),
        (b'{"scores": [1], "scores": [2]}', "answered"),
        (b'{"scores": [1e15]}', "gave the score '1000000000000000.0'"),
        (b'{"scores": [-1e300]}', "gave the score '-1e[+]300'"),
        (b'{"scores": [' + b"9" * 5000 + b"]}", "answered"),
        (b'{"scores": [1e999]}', "gave the score 'inf'"),
        (b'{"scores": ["\\ud800"]}', "answered"),
        (b'{"scores": {"0": 1}}', "answered"),
        (b'{"scores": [{"score": {"score": 1}}]}', "gave the score"),
        (b'{"a": ' * 5000, "answered"),
        (b'\xef\xbb\xbf{"scores": [1]}', "answered"),
    ],
)
def test_odd_scores_are_one_line(body, said):
    head = HEAD + b"\r\n"
    with RawServer(after_the_probe(lambda connection: iter([head, body]))) as server:
        entry = scorer_entry(kind="http", url=server.url, max_retries=0)
        with pytest.raises(ScorerError, match=said) as caught:
            HttpScorer(entry, batch_size=1).score(["p"], ["a"], stopped=[True])
    assert "\n" not in str(caught.value)
    assert json.dumps(str(caught.value)).isascii()
