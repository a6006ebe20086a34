"""Attacks on `annotate` and `serve-reward` by kind, against the commands themselves, with an honest client beside.

After each: the honest client is answered, the log has no traceback and at most one line, and nothing was answered 500.
"""

import contextlib
import itertools
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.hostile.attackers import TOKEN, Annotate, Serve, leave
from tests.models import save_tiny_model
from tests.reward.bench.test_bench import save_reward
from tests.serving.wire import status

pytestmark = pytest.mark.hostile

PATIENT_SECONDS = 20  # that an honest client may wait on a slow machine; a starved one waits for ever
MEGABYTES = 400  # that all attacks together may add
CLOSE = "Connection: close"


@pytest.fixture(scope="module")
def annotate(tmp_path_factory):
    target = Annotate(tmp_path_factory.mktemp("annotate"))
    yield target
    target.end()


@pytest.fixture(scope="module")
def serve(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serve")
    target = Serve(folder, save_reward(save_tiny_model(folder / "base"), folder / "reward", 0))
    yield target
    target.end()


@pytest.fixture(params=["annotate", "serve"])
def target(request):
    """A served command, whose log and memory are checked after the attack."""
    target = request.getfixturevalue(request.param)
    target.honest()
    lines, memory = len(target.lines), target.memory()
    yield target
    assert target.honest() < PATIENT_SECONDS
    new = target.lines[lines:]
    assert not [line for line in new if "Traceback" in line]
    assert len(new) <= 1, new
    assert target.memory() < memory + MEGABYTES
    assert target.process.poll() is None


@contextlib.contextmanager
def honest_beside(target):
    """Keep asking honestly while an attack goes on; every answer must come, and come soon."""
    over, waits, faults = threading.Event(), [], []

    def keep_asking():
        while not over.is_set():
            try:
                waits.append(target.honest())
            except Exception as error:  # the main thread raises it
                faults.append(error)
                return
            time.sleep(0.02)

    thread = threading.Thread(target=keep_asking)
    thread.start()
    try:
        yield waits
    finally:
        over.set()
        thread.join()
        if faults:
            raise faults[0]
        print(f"{target.name}: an honest client waited at most {max(waits):.2f} s, {target.memory()} MB")  # noqa: T201
        assert max(waits) < PATIENT_SECONDS


@contextlib.contextmanager
def connections(target, count):
    with contextlib.ExitStack() as held:
        yield [held.enter_context(target.connect()) for _ in range(count)]


METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "BREW", "get", "G" * 5000]
PATHS = [
    "/",
    "/score",
    "/health",
    "/enter?token=guess",
    "/api/state",
    "/api/next?annotator=",
    "/api/items/x",
    "//",
    "/..%2f..%2fetc/passwd",
    "/../../etc/passwd",
    "/%00",
    "/%ff",
    "/page.js/",
    "*",
    "http://evil/",
    "evil:80",
    "/;",
    "/?" + "a" * 15_000,
    "/" + "a" * 15_000,
    "/" + "a" * 100_000,
    "/api/next?annotator=" + "%F0%9F%8E%89" * 500,
]


@pytest.mark.parametrize("method", METHODS)
def test_any_method_at_any_path(target, method):
    for path in PATHS:
        text = "\r\n".join([f"{method} {path} HTTP/1.1", *target.trusted, CLOSE, "Content-Length: 0", "", ""])
        assert status(target.send(text.encode())) != 500, path


HEADERS = [
    [],
    ["Host: evil.example"],
    ["Host: x", "Host: y"],
    ["Host:"],
    ["Host: " + "x" * 10_000],
    ["Expect: 100-continue"],
    ["Upgrade: websocket", "Connection: upgrade", "Sec-WebSocket-Key: eA=="],
    ["Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAA"],
    ["Connection: keep-alive, x, , close"],
    ["Cookie: " + "a=b; " * 3000],
    ["Cookie: =;;=;\x80"],
    ["Authorization: Basic eA=="],
    ["Authorization: Bearer"],
    ["Authorization: Bearer \xff\xfe"],
    ["Authorization: " + "x" * 12_000],
    [f"Authorization: bearer {TOKEN} "],
    ["Content-Type: multipart/form-data; boundary=x"],
    ["Content-Type: application/json; charset=utf-16"],
    ["Content-Encoding: gzip"],
    ["Content-Encoding: deflate, br"],
    ["Accept: \x01"],
    ["X: a\x00b"],
    ["X: a\rb"],
    [" folded: x"],
    ["X: a", " continued"],
    ["No colon"],
    [": no name"],
    ["X y: z"],
    ["\xe9: x"],
    [f"X-{number}: y" for number in range(3000)],
    ["X: " + "y" * 200_000],
    ["Range: bytes=0-,5-6,-1"],
    ["If-None-Match: *"],
    ["If-Modified-Since: never"],
    ["Origin: http://evil.example"],
    ["Origin: null"],
    ["Sec-Fetch-Site: cross-site"],
    ["X-Forwarded-For: 127.0.0.1"],
    ["X-Forwarded-Host: 127.0.0.1"],
    ["Forwarded: for=127.0.0.1;host=127.0.0.1"],
    ["X-HTTP-Method-Override: DELETE"],
    ["Referer: http://evil/?token=x"],
    ["Content-Length: 5", "Transfer-Encoding: chunked"],
    ["Transfer-Encoding: chunked, chunked"],
    ["Transfer-Encoding: identity"],
    ["Transfer-Encoding:\x0bchunked"],
    ["Content-Length: +5"],
    ["Content-Length: 5, 5"],
    ["Content-Length: 0x5"],
    ["Content-Length: -5"],
    ["Content-Length: " + "9" * 30],
    ["Content-Length: 5", "Content-Length: 6"],
]


@pytest.mark.parametrize("number", range(len(HEADERS)))
def test_odd_headers(target, number):
    for known, method in itertools.product((target.trusted, target.stranger, []), ("GET", "POST")):
        names = {line.partition(":")[0].lower() for line in HEADERS[number]}
        kept = [line for line in known if line.partition(":")[0].lower() not in names]
        lines = [f"{method} {target.path} HTTP/1.1", *kept, *HEADERS[number], CLOSE, "", ""]
        assert status(target.send("\r\n".join(lines).encode("latin-1"), seconds=0.5)) != 500


NO_HTTP = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
    b"\x80\x2e\x01\x00\x02",
    b"SSH-2.0-x\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x00" * 100_000,
    b"\r\n" * 50_000,
    b"\n",
    b"GET /\r\n\r\n",
    b"GET / HTTP/0.9\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET  /  HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\nHost: x\n\n",
    b"HELO x\r\nMAIL FROM:<x>\r\n",
    b"*1\r\n$4\r\nPING\r\n",
    bytes(range(256)) * 400,
    "GÉT / HTTP/1.1\r\n\r\n".encode(),
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"{}",
]


@pytest.mark.parametrize("number", range(len(NO_HTTP)))
def test_invalid_http(target, number):
    assert status(target.send(NO_HTTP[number], seconds=0.5)) in (None, 400, 401, 403, 404, 405)


BODIES = {
    "empty": b"",
    "bytes": bytes(range(256)),
    "utf16": "{}".encode("utf-16"),
    "bom": b"\xef\xbb\xbf{}",
    "deep list": b"[" * 60_000,
    "deep object": b'{"a":' * 10_000,
    "deep and closed": b"[" * 30_000 + b"]" * 30_000,
    "long number": b"9" * 60_000,
    "float": b"1e999999",
    "nan": b"NaN",
    "surrogate": b'{"annotator": "\\ud800", "answers": ["\\ud800"], "prompts": ["\\udc00"]}',
    "twice": b'{"annotator": "a", "annotator": "b"}',
    "control": b'{"annotator": "\x00"}',
    "lists": b"[" + b"[]," * 20_000 + b"[]]",
    "many keys": json.dumps({str(n): n for n in range(5000)}).encode(),
    "long key": json.dumps({"k" * 60_000: 1}).encode(),
    "gzip": b"\x1f\x8b\x08" + b"\x00" * 1000,
    "form": b"annotator=x&item=y",
    "name": json.dumps({"annotator": "x" * 60_000}).encode(),
    "line ends": '{"annotator": "a\u2028b\u0085c"}'.encode(),
    "html": b'{"annotator": "<script>alert(1)</script>"}',
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("trusted", [True, False])
def test_invalid_bodies(target, name, trusted):
    code = status(target.send(target.request(BODIES[name], trusted=trusted, more=[CLOSE])))
    assert code in ((400, 404, 409, 413, 422) if trusted else (401, 403))


TEXTS = st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(
    ["annotator", "item", "view", "verdict", "seconds", "prompts", "answers", "stopped", "ranks", "x"]
)


@settings(max_examples=150)
@given(body=st.dictionaries(KEYS, JSON, max_size=6) | JSON)
def test_generated_bodies_of_labels(annotate, body):
    code = status(annotate.send(annotate.request(json.dumps(body).encode(), more=[CLOSE])))
    assert code in (400, 403, 404, 409, 422)


MESSAGES = st.lists(
    st.dictionaries(st.sampled_from(["role", "content", "tools", "tool_calls", "name"]), JSON), max_size=3
)


@settings(max_examples=150)
@given(
    prompts=st.lists(TEXTS | MESSAGES | JSON, max_size=3),
    answers=st.lists(TEXTS | JSON, max_size=3),
    more=st.dictionaries(KEYS, JSON, max_size=2),
)
def test_generated_bodies_of_scores(serve, prompts, answers, more):
    body = {"prompts": prompts, "answers": answers, **more}
    assert status(serve.send(serve.request(json.dumps(body).encode(), more=[CLOSE]))) in (200, 400, 422)


@pytest.mark.parametrize("how", ["fin", "rst", "half"])
@pytest.mark.parametrize("trusted", [True, False])
def test_leaving_at_every_moment(target, how, trusted):
    text = target.request(trusted=trusted)
    cuts = sorted({0, 1, *range(0, len(text), max(1, len(text) // 25)), text.index(b"\r\n\r\n") + 4, len(text) - 1})
    for cut in cuts:
        wire = target.connect()
        wire.sendall(text[:cut])
        time.sleep(0.005)
        leave(wire, how)
    for seconds in (0, 0, 0.01, 0.05):  # in the queue, or while the answer is written
        wire = target.connect()
        wire.sendall(text)
        time.sleep(seconds)
        leave(wire, how)


def test_leaving_in_the_middle_of_chunks(target):
    for end in (
        b"",
        b"5",
        b"5\r\n",
        b"5\r\n{",
        b"5\r\n{    \r\n",
        b"zz\r\n",
        b"-1\r\n",
        b"fffffffffffffffff\r\n",
        b"0\r\n",
        b"0\r\nx",
    ):
        for trusted in (True, False):
            wire = target.connect()
            wire.sendall(target.request(b"", more=["Transfer-Encoding: chunked"], trusted=trusted) + end)
            time.sleep(0.02)
            leave(wire, "fin")


@pytest.mark.parametrize("count", [70, 200, 700])
def test_idle_connections(target, count):
    with honest_beside(target) as waits, connections(target, count):
        seen = len(waits)
        while len(waits) < seen + 10:
            time.sleep(0.05)


@pytest.mark.parametrize("count", [100, 400])
@pytest.mark.parametrize("begun", ["head", "stranger", "trusted"])
def test_slow_requests(target, count, begun):
    """A byte at a time, of the header or of the body."""
    text = target.request(trusted=begun == "trusted", length=10_000)
    at = 10 if begun == "head" else text.index(b"\r\n\r\n") + 5
    with honest_beside(target), connections(target, count) as wires:
        for wire in wires:
            wire.sendall(text[:at])
        for place in range(at, min(at + 6, len(text))):
            time.sleep(0.3)
            for wire in wires:
                with contextlib.suppress(OSError):
                    wire.sendall(text[place : place + 1])


def test_kept_connections_after_an_answer(target):
    text = target.request(b"{}")
    with honest_beside(target) as waits, connections(target, 300) as wires:
        for wire in wires:
            with contextlib.suppress(OSError):
                wire.sendall(text)
        seen = len(waits)
        while len(waits) < seen + 5:
            time.sleep(0.05)


def test_connections_opened_and_closed_as_fast_as_can_be(target):
    with honest_beside(target):
        for number in range(3000):
            leave(target.connect(), "rst" if number % 2 else "fin")


@pytest.mark.parametrize("trusted", [True, False])
def test_requests_sent_ahead(target, trusted):
    """Pipelining: thousands on one connection."""
    with honest_beside(target):
        target.send(target.request(b"{}", trusted=trusted) * 2000, seconds=0.5)


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("chunk", [b"1\r\nx\r\n" * 10_000, b"10000\r\n" + b" " * 65_536 + b"\r\n"])
def test_bodies_without_an_end(target, trusted, chunk):
    head = target.request(b"", more=["Transfer-Encoding: chunked"], trusted=trusted)
    with honest_beside(target), connections(target, 10) as wires:
        for wire in wires:
            wire.settimeout(2)
            with contextlib.suppress(OSError):
                wire.sendall(head)
                for _ in range(300):
                    wire.sendall(chunk)


@pytest.mark.parametrize("trusted", [True, False])
def test_bodies_larger_than_allowed(target, trusted):
    with honest_beside(target):
        for size in (70_000, 8 * 2**20 + 1, 15 * 2**20, 10**12):
            sent = target.request(b" " * min(size, 15 * 2**20), length=size, trusted=trusted, more=[CLOSE])
            assert status(target.send(sent)) in ((413, 400, None) if trusted else (401, 403))


def test_clients_that_do_not_read_their_answers(target):
    text = target.request(b"{}")
    with honest_beside(target), connections(target, 50) as wires:
        for wire in wires:
            with contextlib.suppress(OSError):
                wire.setsockopt(1, 8, 2048)  # SOL_SOCKET, SO_RCVBUF
                wire.sendall(text * 20)
        time.sleep(1)


SCORES = {
    "15 MB answer": {"prompts": ["p"], "answers": ["the cat " * (15 * 2**17)]},
    "7 MB answer": {"prompts": ["p"], "answers": ["the cat " * (7 * 2**17)]},
    "7 MB of emoji": {"prompts": ["p"], "answers": ["\N{PARTY POPPER}" * (7 * 2**18)]},
    "130,000 characters": {"prompts": ["p"] * 60, "answers": ["x" * 130_000] * 60},
    "130,000 blanks": {"prompts": ["p"] * 60, "answers": [" " * 130_000] * 60},
    "100,000 messages": {"prompts": [[{"role": "user", "content": ""}] * 100_000], "answers": ["a"]},
    "odd roles": {"prompts": [[{"role": "x" * 100_000, "content": ""}]], "answers": ["a"]},
    "10^5 answers": {"prompts": [""] * 10**5, "answers": [""] * 10**5},
    "lists": [[]] * 10**6,
    "answers of lists": {"prompts": [[]] * 10**5, "answers": [[]] * 10**5},
    "long unknown keys": {"x" * 10**6: 1, "y" * 10**6: 2},
}


@pytest.mark.parametrize("name", SCORES)
def test_costly_requests_for_scores(serve, name):
    with honest_beside(serve):
        answer = serve.send(serve.request(json.dumps(SCORES[name], ensure_ascii=False).encode(), more=[CLOSE]))
    assert status(answer) in (413, 422)
    assert len(answer) < 1000
    assert not [line for line in serve.lines if "Traceback" in line]


def test_many_large_requests_for_scores_and_small_ones_beside(serve):
    """Eight clients each ask for 4,000 answers; they leave before they are done, and their work goes with them."""
    large = {"prompts": ["p"] * 4000, "answers": [f"{number} " + "the cat " * 20 for number in range(4000)]}
    text = serve.request(json.dumps(large).encode())
    with honest_beside(serve) as waits, connections(serve, 8) as wires:
        for wire in wires:
            wire.sendall(text)
        seen = len(waits)
        while len(waits) < seen + 8:
            time.sleep(0.05)
    assert serve.honest() < PATIENT_SECONDS


def test_two_hundred_clients_at_once(target):
    if target.name == "annotate":
        return  # one person labels; the page is read by all
    with ThreadPoolExecutor(200) as pool:
        waits = list(pool.map(lambda _: target.honest(), range(400)))
    assert max(waits) < 3 * PATIENT_SECONDS


def test_every_label_that_was_confirmed_is_in_the_store(annotate):
    """The last word after all attacks: the server is killed, and the file holds what was said."""
    import sqlite3

    annotate.honest()
    annotate.process.kill()
    annotate.process.wait()
    with contextlib.closing(sqlite3.connect(annotate.store)) as connection:
        kept = connection.execute("SELECT annotator, count(*) FROM people GROUP BY annotator").fetchall()
    assert kept == [("Anna", annotate.saved)]


def test_no_secret_is_in_the_log(annotate, serve):
    secrets = [TOKEN, *(line.rpartition("=")[2] for line in annotate.trusted if line.startswith("Cookie"))]
    log = "".join(annotate.lines + serve.lines)
    assert not [secret for secret in secrets if secret in log]
    assert log.count("token=") == 1  # the printed link
