"""No server holds a client beyond its time, fills its memory, or sends it elsewhere."""

import gzip
import socket
import time
import tracemalloc
import zlib

import httpx2
import pytest

from alignment.bounded_http import BoundedClient, ReplyError, at_most, fault_of_address, is_loopback, leads_elsewhere
from tests.raw_server import HEAD, RawServer, for_ever, read_request, reading_slowly, sending

SECONDS, PATIENCE = 0.5, 10.0  # what an exchange may take, and what a slow machine may add to it
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def client(**given):
    return BoundedClient(**{"seconds": SECONDS, "connect_seconds": SECONDS, "largest_bytes": 2**20, **given})


DRIPS = {
    "nothing at all": for_ever(b"", b"", 0.05),
    "the status line": for_ever(b"HTTP/1.1 200", b"O", 0.05),
    "headers": for_ever(HEAD, b"X-A: b\r\n", 0.05),
    "a header without end": for_ever(HEAD + b"X-A: ", b"b", 0.05),
    "interim responses": for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01),
    "a body of known length": for_ever(HEAD + b"Content-Length: 100000\r\n\r\n", b" ", 0.05),
    "a body until the end": for_ever(HEAD + b"\r\n", b" ", 0.05),
    "chunks": for_ever(CHUNKED, b"1\r\n \r\n", 0.05),
    "a chunk's extension": for_ever(CHUNKED + b"1;", b"x", 0.05),
    "trailers": for_ever(CHUNKED + b"1\r\n \r\n0\r\n", b"X-A: b\r\n", 0.05),
    "a compressed body": for_ever(HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"x")[:10], b"\0", 0.05),
}


@pytest.mark.parametrize("drip", DRIPS)
def test_a_server_that_drips_is_left_in_time(drip):
    with RawServer(DRIPS[drip]) as server, client() as http:
        start = time.monotonic()
        with pytest.raises((httpx2.TimeoutException, httpx2.RemoteProtocolError, ReplyError)):
            http.post(server.url, json={"a": 1})
        assert time.monotonic() - start < SECONDS + PATIENCE


def test_a_server_that_reads_slowly_is_left_in_time():
    with RawServer(reading_slowly) as server, client() as http:
        start = time.monotonic()
        with pytest.raises(httpx2.TimeoutException):
            http.post(server.url, content=b"x" * 2**25)
        assert time.monotonic() - start < SECONDS + PATIENCE


def test_a_server_that_accepts_no_connection_is_left_in_time():
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        url = f"http://127.0.0.1:{full.getsockname()[1]}/"
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:  # fills the backlog, so that the next one waits
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        start = time.monotonic()
        with client() as http, pytest.raises(httpx2.TimeoutException):
            http.get(url)
        assert time.monotonic() - start < SECONDS + PATIENCE
        for each in waiting:
            each.close()


def bomb(megabytes):
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(megabytes)) + packer.flush()


FLOODS = {
    "a body until the end": for_ever(HEAD + b"\r\n", bytes(65536)),
    "chunks": for_ever(CHUNKED, b"10000\r\n" + bytes(65536) + b"\r\n"),
    "a body longer than its length": sending(HEAD + b"Content-Length: 99999999999\r\n\r\n", bytes(2**21)),
    "headers": for_ever(HEAD, b"X-A: " + b"b" * 1000 + b"\r\n"),
    "a header without end": for_ever(HEAD + b"X-A: ", b"b" * 65536),
    "trailers": for_ever(CHUNKED + b"0\r\n", b"X-A: " + b"b" * 1000 + b"\r\n"),
}
FLOODS |= {
    f"a bomb in {name}": sending(HEAD + b"Content-Encoding: " + name.encode() + b"\r\n\r\n", body)
    for name, body in (("gzip", bomb(200)), ("deflate", zlib.compress(bytes(200 * 2**20))), ("x-gzip", bomb(200)))
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_takes_no_more_memory_than_is_allowed(flood):
    with RawServer(FLOODS[flood]) as server, client(seconds=30.0) as http:
        tracemalloc.start()
        try:
            with pytest.raises((ReplyError, httpx2.RemoteProtocolError, httpx2.ReadError)):
                http.get(server.url)
            assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress", "rot13", "gzip\xff"])
def test_an_encoding_that_was_not_asked_for_is_refused(encoding):
    head = HEAD + b"Content-Encoding: " + encoding.encode("latin-1") + b"\r\n\r\n"
    with RawServer(sending(head, b"{}")) as server, client() as http, pytest.raises(ReplyError, match="encoded as"):
        http.get(server.url)


@pytest.mark.parametrize(
    "body", [b"{}", gzip.compress(b"{}" * 99, mtime=0)[:-12], b"\x1f\x8b\x08\0\0\0\0\0\0\xff\xff\xff\xff"]
)
def test_a_compressed_body_that_is_none_or_cut_off_is_refused(body):
    head = HEAD + b"Content-Encoding: gzip\r\n\r\n"
    with RawServer(sending(head, body)) as server, client() as http, pytest.raises(ReplyError, match="compressed body"):
        http.get(server.url)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("gzip", gzip.compress(b'{"a": 1}', mtime=0)), ("deflate", zlib.compress(b'{"a": 1}')), ("identity", b'{"a": 1}')],
)
def test_an_honest_reply_is_unpacked(encoding, body):
    head = HEAD + b"Content-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (encoding.encode(), len(body))
    with RawServer(sending(head, body)) as server, client() as http:
        assert http.get(server.url).json() == {"a": 1}


def test_the_size_can_be_set_for_single_exchanges():
    body = HEAD + b"Content-Length: 100\r\n\r\n" + bytes(100)
    with RawServer(sending(body)) as server, client(largest_bytes=99) as http:
        with pytest.raises(ReplyError, match=r"larger than 0\.0 MiB"):
            http.get(server.url)
        with at_most(100):
            assert len(http.get(server.url).content) == 100
        with pytest.raises(ReplyError):
            http.get(server.url)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(status):
    with RawServer(sending(HEAD + b"Content-Length: 2\r\n\r\n{}")) as other:
        moved = f"HTTP/1.1 {status} Moved\r\nLocation: {other.url}\r\nContent-Length: 0\r\n\r\n".encode()
        with RawServer(sending(moved)) as server, client() as http:
            reply = http.post(server.url, json={}, follow_redirects=True)
            assert reply.status_code == status
            assert leads_elsewhere(reply)
        assert other.connections == 0


@pytest.mark.parametrize(
    ("location", "elsewhere"),
    [("/v2", False), ("", False), ("//other/v1", True), ("https://127.0.0.1/v1", True), ("http://[", True)],
)
def test_where_a_redirect_leads(location, elsewhere):
    request = httpx2.Request("GET", "http://127.0.0.1/v1")
    assert leads_elsewhere(httpx2.Response(307, headers={"Location": location}, request=request)) == elsewhere


def test_a_connection_that_dies_between_two_exchanges_is_an_error_or_a_new_connection():
    def once(connection):
        read_request(connection)
        yield HEAD + b"Content-Length: 2\r\nConnection: keep-alive\r\n\r\n{}"

    with RawServer(once) as server, client() as http:
        for _ in range(3):
            assert http.get(server.url).json() == {}
            time.sleep(0.05)


def test_a_later_exchange_of_the_same_thread_has_its_own_time():
    with RawServer(sending(HEAD + b"Content-Length: 2\r\n\r\n{}")) as server, client() as http:
        for _ in range(3):
            time.sleep(SECONDS / 2)
            assert http.get(server.url).json() == {}


NO_ADDRESSES = ["", "x", "localhost:80", "ftp://h/", "http://", "http://[::1", "http://h:x/", "http://h:99999/"]
NO_ADDRESSES += ["http://a b/", "http://h/\n", "http://h/\x00", "http://h\xfc/", f"http://{'a' * 70}/"]
NO_ADDRESSES += ["http://a..b/", "http://u:p@h/", "//h/"]


@pytest.mark.parametrize("url", NO_ADDRESSES)
def test_the_fault_of_an_address_is_reported(url):
    assert fault_of_address(url)


@pytest.mark.parametrize(
    "url", ["http://localhost:8000/v1", "https://h.example/a?b=c", "http://[::1]:80/", "http://1.2.3.4"]
)
def test_valid_addresses(url):
    assert fault_of_address(url) is None


def test_loopback_is_this_machine_alone():
    assert [is_loopback(f"http://{host}/") for host in ("127.9.9.9", "[::1]", "localhost")] == [True] * 3
    assert [is_loopback(f"http://{host}/") for host in ("10.0.0.1", "localhost.example", "h")] == [False] * 3
