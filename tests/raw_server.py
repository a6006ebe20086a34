"""A server on loopback that writes bytes as a script says: slowly, for ever, or not at all."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

# `sending` hangs up after an answer: without Connection: close, the next request on this connection may be reset.
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
Script = Callable[[socket.socket], Iterator[bytes]]


class RawServer:
    """Reads each request as far as `script` does, then sends what it yields; `with` starts and stops it."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.connections = 0
        self.over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def __enter__(self) -> "RawServer":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            for part in self.script(connection):
                if self.over.is_set():
                    return
                connection.sendall(part)


def read_request(connection: socket.socket) -> bytes:
    """Read a request with its body."""
    received = b""
    while b"\r\n\r\n" not in received:
        more = connection.recv(65536)
        if not more:
            return received
        received += more
    head, _, body = received.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def sending(*parts: bytes) -> Script:
    """Read the request, send the parts, hang up."""

    def script(connection: socket.socket) -> Iterator[bytes]:
        read_request(connection)
        yield from parts

    return script


def for_ever(first: bytes, part: bytes, seconds: float = 0.0) -> Script:
    """Read the request, send `first`, then `part` again and again with a pause before each."""

    def script(connection: socket.socket) -> Iterator[bytes]:
        read_request(connection)
        yield first
        while True:
            time.sleep(seconds)
            yield part

    return script


def reading_slowly(connection: socket.socket) -> Iterator[bytes]:
    """Take a byte of the request now and then, and answer nothing."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    while connection.recv(1):
        time.sleep(0.05)
        yield b""
