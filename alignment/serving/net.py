"""The outermost layer of a server: whatever a client does, it gets an answer and the log gets one line at most."""

import asyncio
import logging
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOG = logging.getLogger("uvicorn.error")
LONGEST_LINE = 300  # characters
CLOSE = (b"connection", b"close")


class Net:
    """ASGI middleware around an application."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and report what goes wrong with it."""
        if scope["type"] == "lifespan":
            asyncio.get_running_loop().set_exception_handler(_report)
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:  # the server ends, and this request took longer than it waits
            await exchange.fail(503, "the server is ending; ask again in a moment.")
        except Exception as error:
            LOG.error("%s", one_line(f"{scope['method']} {scope['path']}: {described(error)}"))
            await exchange.fail(500, "the server failed at this request; its log has a line about it.")


class _Exchange:
    """One request with its answer, and how far both have come."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
            if self._unread:  # nobody will read the rest, so no other request can follow it
                message = {**message, "headers": [*message.get("headers", []), CLOSE]}
        await self._send(message)

    async def fail(self, status: int, error: str) -> None:
        """Answer with an error where no answer has begun; one that breaks off half-way ends with its connection."""
        if not self._started:
            await JSONResponse({"error": error}, status)(self._scope, self._receive, self.send)


def described(error: BaseException) -> str:
    """Return an error's type, message and innermost place, for a line of the log."""
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
