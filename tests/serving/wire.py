"""A server in a thread, and what is needed to speak to it badly: raw sockets."""

import contextlib
import logging
import socket
import threading
import time

from alignment.serving.address import listen
from alignment.serving.connection import PATIENCE
from alignment.serving.server import server


class Log(logging.Handler):
    """The lines that a server logs; none may be a traceback."""

    LOGGERS = ("uvicorn.error", "asyncio")

    def __init__(self):
        super().__init__()
        self.lines = []
        for name in self.LOGGERS:
            logging.getLogger(name).addHandler(self)

    def emit(self, record):
        self.lines.append(record.getMessage() + ("\n(traceback)" if record.exc_info else ""))

    def end(self):
        for name in self.LOGGERS:
            logging.getLogger(name).removeHandler(self)
        assert not [line for line in self.lines if "\n" in line]


class Running:
    """A real server of an application on loopback, in a thread."""

    def __init__(self, app, patience=PATIENCE):
        self.listener = listen("127.0.0.1", 0)
        self.listener.listen()
        self.port = self.listener.getsockname()[1]
        self.server = server(app, grace_seconds=2, patience=patience)
        self.log = Log()  # after uvicorn has set up its own
        self._thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})

    def __enter__(self):
        self._thread.start()
        until(lambda: self.server.started)
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.log.end()

    @property
    def connections(self):
        return len(self.server.server_state.connections)

    def connect(self):
        return connect(self.port)

    def ask(self, text):
        """Send bytes and return all that comes back until the server closes or is quiet."""
        return ask(self.port, text)


def until(condition, seconds=30):
    """Wait for a condition; generous, since only its coming matters."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def connect(port, seconds=30):
    return socket.create_connection(("127.0.0.1", port), timeout=seconds)


def ask(port, text, seconds=30):
    with connect(port, seconds) as wire:
        with contextlib.suppress(OSError):  # a server may answer before it has read all
            wire.sendall(text)
        return whole(wire)


def whole(wire):
    """Everything until the server closes."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while part := wire.recv(65536):
            found += part
    return found


def answered(wire, ending):
    """Read from a connection that stays open until `ending` came."""
    found = b""
    while not found.endswith(ending):
        part = wire.recv(65536)
        assert part, f"closed after {found!r}"
        found += part
    return found


def get(path="/", *more, close=True):
    lines = [f"GET {path} HTTP/1.1", "Host: x", *(["Connection: close"] if close else []), *more]
    return "\r\n".join([*lines, "", ""]).encode()


def post(body, *more, path="/", length=None):
    size = len(body) if length is None else length
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {size}", *more]
    return "\r\n".join([*lines, "", ""]).encode() + body


def status(answer):
    """The code of a raw answer, or None where none came."""
    return int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else None
