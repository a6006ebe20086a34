"""The outermost layer of a server: every request gets a response, and every failure at most one line in the log."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOG = logging.getLogger("uvicorn.error")
ErrorBody = Callable[[str, int], Any]
LONGEST_LINE = 300  # characters
CLOSE = (b"connection", b"close")


class Net:
    """ASGI middleware around an application.

    Args:
        body: makes the body of an error response from a message and a status.
    """

    def __init__(self, app: ASGIApp, body: ErrorBody = lambda message, status: {"error": message}) -> None:
        self.app, self.body = app, body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, and report its errors."""
        if scope["type"] == "lifespan":
            asyncio.get_running_loop().set_exception_handler(_report)
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self.body)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:  # the server shuts down, and the grace period is over
            await exchange.fail(503, "the server is shutting down; retry later.")
        except Exception as error:
            LOG.error("%s", one_line(f"{scope['method']} {scope['path']}: {described(error)}"))
            await exchange.fail(500, "the server failed to process this request; see its log.")


class _Exchange:
    """A request and its response, with their progress."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, body: ErrorBody) -> None:
        self._body = body
        names = {name for name, _ in scope["headers"]}
        self._scope, self._receive, self._send = scope, receive, send
        self._unread = bool(names & {b"transfer-encoding", b"content-length"})
        self._started = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._unread = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            if self._unread:  # the rest of the body stays unread, so no other request can follow
                message = {**message, "headers": [*message.get("headers", []), CLOSE]}
        await self._send(message)

    async def fail(self, status: int, error: str) -> None:
        """Respond with an error, unless the response has begun; then the connection ends."""
        if not self._started:
            await JSONResponse(self._body(error, status), status)(self._scope, self._receive, self.send)


def described(error: BaseException) -> str:
    """Return an error's type, message and location, for a line of the log."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})" if trace is not None else ""
    return f"{type(error).__name__}: {error}{place}"


def one_line(text: str) -> str:
    """Return text as one printable line, shortened: parts of it come from clients."""
    plain = "".join(character if character.isprintable() else " " for character in text[: 4 * LONGEST_LINE])
    plain = " ".join(plain.split())
    return plain if len(plain) <= LONGEST_LINE else plain[: LONGEST_LINE - 3] + "..."


def _report(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    LOG.error("%s", one_line(f"{context.get('message')}" + (f": {described(error)}" if error else "")))
