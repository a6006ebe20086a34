"""Bodies: bounded in bytes, in time, in values and in the room that all share."""

import json
import threading
import time
import tracemalloc

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from alignment.serving.body import SMALL_BYTES, VALUES, Body, Refused, Room, parse
from alignment.serving.net import one_line
from tests.serving.wire import Running, ask, post, status, until, whole


@pytest.fixture
def app():
    room = Room(2**20)

    async def take(request: Request):
        async with Body(request, room, most=2**20, advice="send less", seconds=0.5) as body:
            value = await body.json()
            app.state.seen.append(value)
            return JSONResponse(len(str(value)))

    async def refused(request: Request, error: Exception):
        assert isinstance(error, Refused)
        return JSONResponse(error.detail, error.status_code, error.headers)

    app = Starlette(routes=[Route("/", take, methods=["POST"])], exception_handlers={Refused: refused})
    app.state.room, app.state.seen = room, []
    return app


def test_a_body_is_taken_up_to_its_limit(app):
    with Running(app) as running:
        assert status(running.ask(post(b'{"a": 1}'))) == 200
        assert status(running.ask(post(json.dumps("x" * (2**20 - 2)).encode()))) == 200
        answer = running.ask(post(json.dumps("x" * 2**20).encode()))
        assert (status(answer), b"larger than 1048576 bytes; send less" in answer) == (413, True)
        assert status(running.ask(post(b"", length=10**18))) == 413
        chunked = post(b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        assert status(running.ask(chunked + b"fffff0\r\n" + b"x" * 2**21)) == 413
        assert app.state.room.held == 0
        assert len(app.state.seen) == 2


def test_a_slow_body_is_answered_and_one_that_breaks_off_is_not(app):
    with Running(app) as running:
        answer = running.ask(post(b"{", length=100))
        assert (status(answer), b"did not arrive within 0.5 seconds" in answer) == (408, True)
        with running.connect() as wire:
            wire.sendall(post(b"{", length=100))
        until(lambda: running.connections == 0)
    assert not running.log.lines


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"a": 1, "a": 2}', "the key 'a' is given twice"),
        (b"1" * 5000, "is not JSON"),
        (b'{"a": ' * 50_000 + b"1" + b"}" * 50_000, "is not JSON"),
    ],
)
def test_invalid_json_is_reported_in_one_line(body, said):
    with pytest.raises(Refused, match=said) as told:
        parse(body)
    assert told.value.status_code == 400
    assert len(told.value.detail) <= 300


@pytest.mark.parametrize("item", [b"[]", b"{}", b'""', b"1", b'"\\""', b'"\\\\"', b"[[]]"])
def test_many_tiny_values_are_refused_before_they_are_made(item):
    body = b"[" + b",".join([item] * (2 * VALUES)) + b"]"
    tracemalloc.start()
    with pytest.raises(Refused, match=f"more than {VALUES} values") as told:
        parse(body)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert told.value.status_code == 413
    assert peak < 30 * len(body)  # the values themselves take up to 100 bytes each


@pytest.mark.parametrize("text", ["," * (3 * VALUES), "[{" * VALUES, '"' * (3 * VALUES), "\\" * VALUES + ","])
def test_marks_inside_a_text_are_not_values(text):
    assert parse(json.dumps([text]).encode()) == [text]


def test_large_bodies_share_the_room_and_small_ones_need_none(app):
    size = 700_000
    with Running(app) as running:
        with running.connect() as first:
            first.sendall(post(b'"' + b"x" * size, length=size + 2))
            until(lambda: app.state.room.held >= size)
            answer = running.ask(post(json.dumps("x" * size).encode()))
            assert (status(answer), b"retry-after: 1" in answer.lower()) == (503, True)
            assert status(running.ask(post(json.dumps("x" * (SMALL_BYTES - 2)).encode()))) == 200
            first.sendall(b'"')
            assert status(whole(first)) == 200
        assert app.state.room.held == 0
        assert status(running.ask(post(json.dumps("x" * size).encode()))) == 200


def test_a_compressed_body_is_refused(app):
    with Running(app) as running:
        assert status(running.ask(post(b"\x1f\x8b", "Content-Encoding: gzip"))) == 415
        assert status(running.ask(post(b"1", "Content-Encoding: identity"))) == 200


def test_small_requests_get_their_turn_beside_many_large_ones(app):
    """Parsing is done one body at a time, with a turn of the loop between; here it only must not fail."""
    large = post(json.dumps(["x"] * 60_000).encode())
    with Running(app) as running:
        threads = [threading.Thread(target=ask, args=(running.port, large)) for _ in range(6)]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        assert status(running.ask(post(b"1"))) == 200
        assert time.monotonic() - began < 20
        for thread in threads:
            thread.join()


def test_a_line_of_the_log_is_one_line():
    assert one_line("a\nb\x1b[31m\u2028c") == "a b [31m c"
    assert len(one_line("x" * 10**6)) == 300
