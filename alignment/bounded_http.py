"""HTTP exchanges with untrusted servers: limited in time and size, without redirects.

The time-out of an HTTP library limits one read, so a server that sends single bytes can block a client forever, and
its decoder has no limit on the decompressed size. Every HTTP client of this project is a `BoundedClient`.
"""

import contextlib
import ipaddress
import threading
import time
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpcore2
import httpx2

ENCODINGS = frozenset({"gzip", "x-gzip", "deflate"})  # supported encodings; no other is requested
MIB = 2**20
SLICE = 4096  # bytes per write; the deadline is checked after each
SHORTEST_SECONDS = 0.001  # a time-out of 0 would mean no waiting

MOVED = frozenset({301, 302, 303, 307, 308})  # the status codes of redirects
_now = threading.local()  # `deadline` and `largest_bytes` of this thread's exchange


class ReplyError(httpx2.TransportError):
    """A reply is too large, or has an encoding that was not requested."""


class BoundedClient(httpx2.Client):
    """A client whose exchanges take at most `seconds`, from the DNS lookup to the last byte of the reply.

    A reply is read completely before it is returned. Redirects are returned, for the caller to reject.
    """

    def __init__(self, *, seconds: float, connect_seconds: float, largest_bytes: int, trust_env: bool = True) -> None:
        """Build the client.

        Args:
            largest_bytes: of a decompressed reply body. trust_env: use the proxies of the environment.
        """
        super().__init__(
            timeout=httpx2.Timeout(seconds, connect=min(connect_seconds, seconds)),
            limits=httpx2.Limits(max_connections=1000, max_keepalive_connections=100),
            headers={"Accept-Encoding": "gzip, deflate"},
            follow_redirects=False,
            trust_env=trust_env,
        )
        self.seconds = seconds
        self.largest_bytes = largest_bytes
        for transport in {self._transport, *self._mounts.values()}:
            if isinstance(transport, httpx2.HTTPTransport):
                transport._pool._network_backend = _Backend(transport._pool._network_backend)

    def send(self, request: httpx2.Request, **given: Any) -> httpx2.Response:
        """Make one exchange.

        Raises: httpx2.TimeoutException if it is not over in time; ReplyError; httpx2.TransportError if the
            connection fails.
        """
        given |= {"stream": True, "follow_redirects": False}
        with _deadline(self.seconds):
            response = super().send(request, **given)
            try:
                body = b"".join(self._unpacked(response))
            finally:
                response.close()
        left = [(name, value) for name, value in response.headers.raw if name.lower() not in UNPACKED]
        return httpx2.Response(response.status_code, headers=left, content=body, request=response.request)

    def _unpacked(self, response: httpx2.Response) -> Iterator[bytes]:
        """Yield the decompressed body, up to the limit."""
        encoding = response.headers.get("content-encoding", "identity").strip().lower() or "identity"
        if encoding != "identity" and encoding not in ENCODINGS:
            raise ReplyError(f"the reply is encoded as {encoding[:40]!r}, which was not requested")
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 32) if encoding in ENCODINGS else None  # 32: by its first bytes
        most = room = getattr(_now, "largest_bytes", None) or self.largest_bytes
        for received in response.iter_raw():
            parts = _parts(unpack, received, room + 1) if unpack else [received]
            for part in parts:
                room -= len(part)
                if room < 0:
                    raise ReplyError(f"the reply is larger than {most / MIB:.1f} MiB")
                yield part
        if unpack and not unpack.eof and room < most:
            raise ReplyError("the reply's compressed body is cut off")


def fault_of_address(url: str) -> str | None:
    """Return why a text is not a valid address; None if it is.

    The reason for a user name or password is "userinfo", so that no message quotes it.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        if parts.username or parts.password:
            return "userinfo"
        if parts.scheme not in ("http", "https") or not host:
            return "it does not begin with http:// or https:// and a host"
        if not url.isascii() or not url.isprintable() or " " in url:
            return "it holds a space, a line break or a letter beyond ASCII"
        host.encode("idna")
        httpx2.URL(url)
    except (ValueError, httpx2.InvalidURL) as error:  # UnicodeError is a ValueError
        return " ".join(str(error).split())[:100]
    return None


def is_loopback(url: str | None) -> bool:
    """Whether an address is on this machine, which a proxy cannot reach."""
    host = urlsplit(url or "").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


UNPACKED = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})  # headers of the packed body


def _parts(unpack: Any, received: bytes, most: int) -> Iterator[bytes]:
    """Decompress, `most` bytes at a time; bytes after the end of the compressed data are ignored."""
    try:
        while received and not unpack.eof:
            yield unpack.decompress(received, most)
            received = unpack.unconsumed_tail
    except zlib.error as error:
        raise ReplyError(f"the reply's compressed body cannot be unpacked ({error})") from None


@contextlib.contextmanager
def at_most(largest_bytes: int) -> Iterator[None]:
    """Set another maximum size of replies for this thread."""
    _now.largest_bytes = largest_bytes
    try:
        yield
    finally:
        _now.largest_bytes = None


def leads_elsewhere(response: httpx2.Response) -> bool:
    """Whether a redirect points to another scheme, host or port, or to an invalid address."""
    try:
        to = response.request.url.join(response.headers.get("location", ""))
    except (httpx2.InvalidURL, ValueError):
        return True
    asked = response.request.url
    return (to.scheme, to.host, to.port) != (asked.scheme, asked.host, asked.port)


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    before = getattr(_now, "deadline", None)
    _now.deadline = time.monotonic() + seconds
    try:
        yield
    finally:
        _now.deadline = before


def _left(timeout: float | None, late: type[Exception]) -> float | None:
    """Return what is left of a time-out for one step; raises `late` where nothing is."""
    deadline = getattr(_now, "deadline", None)
    if deadline is None:
        return timeout
    left = deadline - time.monotonic()
    if left <= 0:
        raise late("the exchange takes too long")
    return max(SHORTEST_SECONDS, left if timeout is None else min(timeout, left))


class _Stream(httpcore2.NetworkStream):
    """A connection that applies the deadline of its thread to every step."""

    def __init__(self, inner: httpcore2.NetworkStream) -> None:
        self.inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self.inner.read(max_bytes, _left(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), SLICE):
            self.inner.write(buffer[start : start + SLICE], _left(timeout, httpcore2.WriteTimeout))

    def close(self) -> None:
        self.inner.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        timeout = _left(timeout, httpcore2.ConnectTimeout)
        return _Stream(self.inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self.inner.get_extra_info(info)


class _Backend(httpcore2.NetworkBackend):
    """Opens such connections."""

    def __init__(self, inner: httpcore2.NetworkBackend) -> None:
        self.inner = inner

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore2.NetworkStream:
        timeout = _left(timeout, httpcore2.ConnectTimeout)
        return _Stream(self.inner.connect_tcp(host, port, timeout, local_address, socket_options))

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Any = None
    ) -> httpcore2.NetworkStream:
        timeout = _left(timeout, httpcore2.ConnectTimeout)
        return _Stream(self.inner.connect_unix_socket(path, timeout, socket_options))

    def sleep(self, seconds: float) -> None:
        self.inner.sleep(seconds)
