"""The served reward model: over real sockets, asked by PPO's own scorer, by many at once, and wrongly."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from alignment.config.schema import scorer_entry
from alignment.errors import AlignmentError, DataError
from alignment.serving.address import listen
from alignment.serving.batching import Batcher, Busy, ScoreRequest
from alignment.serving.server import server
from alignment.serving.token import token_of
from reward.models.ensemble import Ensemble
from reward.models.scoring import RewardScorer
from reward.scorers.http import HttpScorer
from reward.serving.app import build_app
from reward.serving.requests import Limits
from reward.serving.serve import Settings, serve
from tests.models import save_tiny_model
from tests.reward.bench.test_bench import save_reward

TOKEN = "a-token-of-the-test"
PROMPTS = [[{"role": "user", "content": "tell me 1"}], "the cat", [{"role": "user", "content": "Grüß dich"}]]
ANSWERS = ["the dog jumps over", "jumps", ""]
STOPPED = [True, False, True]


class Counting:
    """Scores by length; remembers how many answers each batch held, and may be held up or fail."""

    def __init__(self):
        self.batches, self.gate, self.value = [], threading.Event(), None
        self.gate.set()

    def encode(self, prompt, answer, stopped=True, tokens=(), *, where):
        if answer == "too long":
            raise DataError(f"{where}: does not fit.")
        return [len(answer), int(stopped)]

    def score_tokens(self, sequences):
        self.batches.append(len(sequences))
        self.gate.wait(10)
        return [self.value if self.value is not None else ids[0] + 0.5 * ids[1] for ids in sequences]


class Server:
    """A real server on loopback in a thread."""

    def __init__(self, model, **limits):
        self.batcher = Batcher(model, batch_answers=64, most_waiting=1000)
        listener = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.listen()
        up = threading.Event()
        app = build_app(self.batcher, TOKEN, limits=Limits(**limits), started=up.set)
        self._server = server(app, grace_seconds=10)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()
        assert up.wait(10)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.should_exit = True
        self._thread.join()

    def post(self, body, *, token=TOKEN, path="/score", method="POST"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=10) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                text = error.read()
                return error.code, json.loads(text) if text[:1] == b"{" else text.decode()


def ensemble(*members):
    return Ensemble(tuple(members), ("m",) * len(members))


def body(*answers, **more):
    return {"prompts": ["p"] * len(answers), "answers": list(answers), **more}


@pytest.fixture(scope="module")
def reward(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    return save_reward(save_tiny_model(folder / "base"), folder / "reward", 0)


def test_ppos_scorer_gets_the_same_scores_over_http_as_in_process(reward, monkeypatch):
    monkeypatch.setenv("RM_KEY", TOKEN)
    entry = scorer_entry(kind="http", url="x", api_key_env="RM_KEY", max_retries=0)
    with Server(Ensemble.load(reward)) as server:
        entry = entry.model_copy(update={"url": f"{server.url}/score"})
        told = HttpScorer.from_entry(entry, batch_size=2).score(PROMPTS, ANSWERS, stopped=STOPPED)
    expected = RewardScorer.load(reward).score(PROMPTS, ANSWERS, stopped=STOPPED)
    assert told == pytest.approx(expected, abs=1e-6)
    all_ended = RewardScorer.load(reward).score(PROMPTS, ANSWERS)
    assert abs(all_ended[1] - told[1]) > 1e-4  # whether an answer was cut off goes over the wire


def test_requests_that_come_together_are_one_batch_and_each_gets_its_own():
    model = Counting()
    model.gate.clear()
    with Server(ensemble(model)) as server, ThreadPoolExecutor(8) as pool:
        first = pool.submit(server.post, body("a"))
        while not model.batches:
            time.sleep(0.005)
        texts = [["b" * n, "c" * (n + 10)] for n in range(1, 8)]
        others = [pool.submit(server.post, body(*text)) for text in texts]
        while server.batcher.waiting < 15:
            time.sleep(0.005)
        model.gate.set()
        assert first.result() == (200, {"scores": [1.5]})
        for text, other in zip(texts, others, strict=True):
            assert other.result() == (200, {"scores": [len(answer) + 0.5 for answer in text]})
        assert server.batcher.waiting == 0
    assert len(model.batches) == 2
    assert model.batches[0] == 1


def test_an_invalid_request_fails_alone_with_a_reason():
    model = Counting()
    model.gate.clear()
    with Server(ensemble(model)) as server, ThreadPoolExecutor(3) as pool:
        first = pool.submit(server.post, body("a"))
        while not model.batches:
            time.sleep(0.005)
        good, bad = pool.submit(server.post, body("good")), pool.submit(server.post, body("x", "too long"))
        while server.batcher.waiting < 4:
            time.sleep(0.005)
        model.gate.set()
        assert first.result()[0] == 200
        assert good.result() == (200, {"scores": [4.5]})
        assert bad.result() == (422, {"error": "answers[1]: does not fit."})


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (b"{broken", 400, "the body is not JSON"),
        (b"\xff\xfe", 400, "the body is not JSON"),
        (b"[" * 100_000, 400, "the body is not JSON"),
        ([1], 422, "the body is a list; it must be"),
        ({"prompts": ["a"]}, 422, "answers is missing; it must be a list"),
        ({"prompts": "a", "answers": ["b"]}, 422, "prompts is text; it must be a list"),
        ({"prompts": ["a", "b"], "answers": ["b"]}, 422, "2 of prompts for 1 answers; give one for each"),
        ({"prompts": ["a"], "answers": [None]}, 422, "answers[0] is null, not text"),
        ({"prompts": ["a"], "answers": ["b\ud800"]}, 422, "answers[0] holds half of a surrogate pair"),
        ({"prompts": ["\udfff"], "answers": ["b"]}, 422, "prompts[0] holds half of a surrogate pair"),
        ({"prompts": [3], "answers": ["b"]}, 422, "prompts[0] is a number; it must be text or a list of messages"),
        ({"prompts": [[]], "answers": ["b"]}, 422, "prompts[0] is an empty list; it must be text"),
        ({"prompts": [[{"role": "user"}]], "answers": ["b"]}, 422, "prompts[0][0] is not a message with"),
        (body("a", stopped=[1]), 422, "stopped[0] is a number, not true or false"),
        (body("a", stopped=[True, True]), 422, "2 of stopped for 1 answers"),
        (body("a", stop=[True]), 422, "the body has 'stop'; known are prompts, answers and stopped"),
        (body(*"abcdef"), 422, "6 answers are more than the 5 of a request"),
        (body("x" * 3000), 413, "the body is larger than 2000 bytes"),
    ],
)  # fmt: skip
def test_bad_bodies(sent, status, said):
    with Server(ensemble(Counting()), body_bytes=200_000 if sent == b"[" * 100_000 else 2000, answers=5) as server:
        code, told = server.post(sent)
        assert (code, said in told["error"]) == (status, True), told
        assert server.post(body("a"))[0] == 200  # it goes on


def test_who_may_ask_what():
    with Server(ensemble(Counting())) as server:
        for token in (None, "", "another", TOKEN + "x", "\N{PARTY POPPER}".encode().decode("latin-1")):
            code, told = server.post(body("a"), token=token)
            assert (code, "Authorization: Bearer TOKEN" in told["error"]) == (401, True)
        assert server.post(None, token=None, path="/health", method="GET") == (200, {"status": "ok", "waiting": 0})
        assert server.post(body("a"), path="/else")[0] == 404
        assert server.post(b"", method="GET")[0] == 405
        assert server.post({"prompts": [], "answers": []}) == (200, {"scores": []})


def test_a_body_without_a_length_is_cut_off_at_the_limit():
    with Server(ensemble(Counting()), body_bytes=1000) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as wire:
            head = f"POST /score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            wire.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + b"7d0\r\n" + b"x" * 2000 + b"\r\n")
            assert wire.recv(4096).startswith(b"HTTP/1.1 413")


def test_a_score_that_is_not_finite_is_an_error_and_a_full_queue_sets_retry_after():
    model = Counting()
    model.value = float("nan")
    with Server(ensemble(model)) as server:
        code, told = server.post(body("a"))
        assert (code, told["error"] if isinstance(told, dict) else told) == (
            500, "ScorerError: answers[0]: the reward model returned nan, which is not a finite number.")  # fmt: skip
        model.value = None
        model.gate.clear()
        server.batcher.most_waiting = 1
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(server.post, body("a"))
            while not server.batcher.waiting:
                time.sleep(0.005)
            assert server.post(body("b"))[0] == 503
            model.gate.set()
            assert first.result()[0] == 200


def test_waiting_requests_are_answered_before_shutdown():
    model = Counting()
    model.gate.clear()
    batcher = Batcher(ensemble(model), batch_answers=1, most_waiting=10)
    told = [batcher.submit(ScoreRequest(["p"], ["a" * n], [False])) for n in range(3)]
    told[1].cancel()
    with pytest.raises(Busy, match="2 answers are waiting; the limit is 10"):
        batcher.submit(ScoreRequest(["p"] * 9, ["a"] * 9, [True] * 9))
    model.gate.set()
    batcher.close()
    assert [told[0].result(0), told[2].result(0)] == [[0.0], [2.0]]


def test_tokens(monkeypatch):
    monkeypatch.delenv("RM_KEY", raising=False)
    (one, new), (other, _) = token_of("RM_KEY"), token_of("RM_KEY")
    assert new
    assert one != other
    assert len(one) >= 40
    monkeypatch.setenv("RM_KEY", "  secret  ")
    assert token_of("RM_KEY") == ("secret", False)
    monkeypatch.setenv("RM_KEY", "two words")
    with pytest.raises(AlignmentError, match="RM_KEY has characters that are not allowed in an HTTP header"):
        token_of("RM_KEY")
    with pytest.raises(AlignmentError, match="does not look like a name and is not shown") as told:
        token_of("sk-secret")
    assert "sk-secret" not in str(told.value)


def test_an_address_in_use_is_reported_before_the_model_loads():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            AlignmentError,
            match=rf"127\.0\.0\.1', port {port}, cannot be listened on \(.*in use\); name another --port",
        ):
            serve(Settings(["no/such/run"], port=port), print)


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(AlignmentError, match=r"needs uvicorn, which is in the extra serve: pip install") as refused:
        serve(Settings(["x"]), print)
    assert refused.value.exit_code == 2


def test_the_command_until_ctrl_c(reward):
    environment = {**os.environ, "ALIGNMENT_REWARD_KEY": "", "PYTHONUNBUFFERED": "1"}
    words = [sys.executable, "-m", "alignment.cli", "serve-reward", reward, "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        first, second, third = (process.stdout.readline() for _ in range(3))
        url = first.partition("scores at ")[2].partition(";")[0]
        variable, _, token = second.rpartition(" ")[2].strip().partition("=")
        assert variable == "ALIGNMENT_REWARD_KEY"
        assert f"{{kind: http, url: {url}, api_key_env: ALIGNMENT_REWARD_KEY}}" in third
        data = json.dumps(body("the cat")).encode()
        request = urllib.request.Request(url, data, {"Authorization": f"Bearer {token}"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as response:
            scores = json.loads(response.read())["scores"]
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=30)
    assert scores == pytest.approx(RewardScorer.load(reward).score(["p"], ["the cat"]), abs=1e-6)
    assert rest == "stopped\n"
    assert (process.returncode, "Traceback" in errors) == (0, False)
    assert torch.isfinite(torch.tensor(scores)).all()


def test_a_signal_while_the_model_loads_ends_it_as_later(monkeypatch):
    def load(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Ensemble, "load", load)
    lines = []
    serve(Settings(["x"], port=0), lines.append)
    assert lines == ["stopped"]
