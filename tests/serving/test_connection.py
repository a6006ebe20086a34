"""Deadlines and places of connections, over real sockets, with an application that is told what to do."""

import asyncio
import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from alignment.serving.connection import ADMITTED, Patience, places
from tests.serving.wire import Running, answered, get, post, status, until, whole

QUICK = Patience(
    connections=8,
    head_seconds=0.3,
    idle_seconds=0.3,
    sending_seconds=0.5,
    lingering_seconds=0.5,
    lingering_bytes=2**20,
    lines=200,
)
LARGE = 32 * 2**20  # bytes, more than the sockets' buffers hold


@pytest.fixture
def app():
    async def hello(request: Request):
        if request.headers.get("token") == "known":
            request.scope["state"][ADMITTED] = True
        return PlainTextResponse("hello")

    async def slow(request: Request):
        while not app.state.go.is_set():
            await asyncio.sleep(0.01)
        return PlainTextResponse("slow")

    async def read(request: Request):
        return PlainTextResponse(str(len(await request.body())))

    async def large(request: Request):
        async def parts():
            for _ in range(LARGE // 2**16):
                yield b"x" * 2**16

        return StreamingResponse(parts()) if request.query_params else PlainTextResponse("x" * LARGE)

    async def broken(request: Request):
        raise RuntimeError("of\nthe application")

    routes = {"/": hello, "/slow": slow, "/read": read, "/large": large, "/broken": broken}
    app = Starlette(routes=[Route(path, work, methods=["GET", "POST"]) for path, work in routes.items()])
    app.state.go = threading.Event()
    return app


def test_a_connection_without_a_request_is_closed_and_so_is_one_that_drips_it(app):
    with Running(app, QUICK) as running:
        for text in (b"", b"GET / HTTP/1.1\r\nHost: x\r\n"):
            with running.connect() as wire:
                wire.sendall(text)
                assert whole(wire) == b""
        with running.connect() as wire:
            for _ in range(3):  # one letter at a time, each within the time of all
                wire.sendall(b"G")
                time.sleep(0.2)
            assert whole(wire) == b""
        with running.connect() as wire:
            wire.sendall(get(close=False))
            assert status(answered(wire, b"hello")) == 200
            assert whole(wire) == b""  # idle between two requests
        until(lambda: running.connections == 0)


def test_many_idle_connections_hold_no_place_and_those_with_a_token_keep_theirs(app):
    with Running(app, Patience(connections=8)) as running, contextlib.ExitStack() as open_wires:
        known = open_wires.enter_context(running.connect())
        known.sendall(get("/", "Token: known", close=False))
        assert status(answered(known, b"hello")) == 200
        idle = [open_wires.enter_context(running.connect()) for _ in range(30)]
        for _ in range(3):
            assert status(running.ask(get())) == 200
        assert running.connections <= 8
        assert whole(idle[0]) == b""
        known.sendall(get("/", "Token: known"))
        assert status(whole(known)) == 200


def test_requests_in_progress_keep_their_connections_and_one_more_gets_503(app):
    with Running(app, QUICK) as running, ThreadPoolExecutor(8) as pool:
        at_work = [pool.submit(running.ask, get("/slow")) for _ in range(8)]
        until(lambda: len(running.server.server_state.tasks) == 8)
        with running.connect() as wire:
            answer = whole(wire)
        assert status(answer) == 503
        assert b"Retry-After: 1" in answer
        app.state.go.set()
        assert [status(work.result()) for work in at_work] == [200] * 8
        assert status(running.ask(get())) == 200


def test_bodies_that_are_slow_to_come_give_way_to_a_new_request(app):
    with Running(app, QUICK) as running, contextlib.ExitStack() as open_wires:
        for _ in range(20):
            wire = open_wires.enter_context(running.connect())
            wire.sendall(post(b"x", "Token: known", path="/read", length=1000))
        until(lambda: len(running.server.server_state.tasks) >= 8)
        for _ in range(3):
            assert status(running.ask(get())) == 200
    assert not running.log.lines


@pytest.mark.parametrize("path", ["/large", "/large?streamed=1"])
def test_a_client_that_does_not_read_its_answer_is_dropped_and_a_slow_one_is_not(app, path):
    with Running(app, QUICK) as running:
        with running.connect() as wire:
            wire.sendall(get(path))
            until(lambda: running.connections == 1)
            until(lambda: running.connections == 0)
        with running.connect() as wire:
            wire.sendall(get(path))
            found = 0
            while part := wire.recv(2**20):
                found += len(part)
                time.sleep(0.02)
            assert found > LARGE
    assert not running.log.lines


def test_a_body_in_tiny_chunks_is_cut_off_and_one_in_large_chunks_is_not(app):
    head = b"POST /read HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Running(app, QUICK) as running:
        assert status(running.ask(head + b"1\r\nx\r\n" * 5000)) == 400
        answer = running.ask(head + b"400\r\n" + b"\n" * 1024 + b"\r\n0\r\n\r\n")
        assert status(answer) == 400  # lines are counted, since what lies in chunks is known only once they are read
        answer = running.ask(head + b"10000\r\n" + b"x" * 65536 + b"\r\n0\r\n\r\n")
        assert answer.endswith(b"65536")


def test_a_refused_body_is_thrown_away_while_the_client_reads_the_answer(app):
    with Running(app, QUICK) as running:
        answer = running.ask(post(b"x" * 900_000, path="/none"))  # 404, and nobody reads the body
        assert status(answer) == 404
        assert b"connection: close" in answer.lower()
        with running.connect() as wire:  # it is not thrown away for ever
            wire.sendall(post(b"", path="/none", length=10**9))
            with pytest.raises(OSError):  # noqa: PT011 reset or broken pipe
                wire.sendall(b"x" * 2**26)
        until(lambda: running.connections == 0)


def test_requests_sent_ahead_are_answered_in_turn_and_only_so_many(app):
    with Running(app, QUICK) as running:
        answer = running.ask(get(close=False) * 20 + get("/read"))
        assert answer.count(b"HTTP/1.1 200") == 21
        with running.connect() as wire:
            wire.sendall(get("/slow", close=False))
            wire.settimeout(0.3)
            with pytest.raises(OSError):  # noqa: PT011 reset, or not taken any more
                wire.sendall(get(close=False) * 400_000)
        app.state.go.set()


@pytest.mark.parametrize(
    "text",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),  # TLS
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 10_000 + b"\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 300 + b"\r\n\r\nx",
        b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBad Header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\na: b\x00c\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_invalid_http_is_answered_with_4xx_and_leaves_no_line(app, text):
    with Running(app, QUICK) as running:
        assert status(running.ask(text)) in (400, 501)
        assert status(running.ask(get())) == 200
    assert not running.log.lines


def test_a_client_that_leaves_at_any_moment_leaves_no_line(app):
    moments = [get()[:cut] for cut in (0, 1, 20)] + [get("/slow"), get("/large")]
    moments += [post(b"x" * 10, path="/read", length=1000), post(b"", path="/read", length=1000)]
    with Running(app, QUICK) as running:
        for text in moments:
            wire = running.connect()
            wire.sendall(text)
            time.sleep(0.05)
            wire.close()
        app.state.go.set()
        until(lambda: running.connections == 0)
        assert status(running.ask(get())) == 200
    assert not running.log.lines


def test_an_error_of_the_application_is_one_line_and_an_answer(app):
    with Running(app, QUICK) as running:
        assert status(running.ask(get("/broken?token=secret"))) == 500
    (line,) = running.log.lines
    assert line.startswith("GET /broken: RuntimeError: of the application (test_connection.py:")
    assert "secret" not in line


def test_the_end_waits_for_requests_at_work_and_then_answers_them(app):
    with ThreadPoolExecutor(1) as pool, Running(app, QUICK) as running, running.connect():
        answer = pool.submit(running.ask, get("/slow"))
        until(lambda: running.server.server_state.tasks)
    assert status(answer.result()) == 503
    assert running.log.lines == ["Cancel 1 running task(s), timeout graceful shutdown exceeded"]


def test_places_keep_to_the_limit_of_open_files():
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        found = places(64)
        assert found == 64
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert places(100) == 100  # raised
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 328
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
