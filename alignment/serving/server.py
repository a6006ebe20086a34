"""uvicorn, configured so that no client blocks the others."""

import logging
import socket
from dataclasses import replace

import uvicorn
from starlette.types import ASGIApp

from alignment.serving.connection import HEAD_BYTES, PATIENCE, Connection, Patience, places
from alignment.serving.net import ErrorBody, Net

TURN = 8  # 1/8 of the connections are accepted at once, so that each is read before it could be dropped
WAITING = 1024  # connections that the operating system queues until they are accepted


class Server(uvicorn.Server):
    """uvicorn's server; the operating system queues more connections than one iteration of the loop accepts."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(WAITING)  # asyncio uses `backlog` for both


def server(app: ASGIApp, *, grace_seconds: int, patience: Patience = PATIENCE, body: ErrorBody | None = None) -> Server:
    """Return a server of an application; `run(sockets=[...])` serves until shutdown.

    Args:
        grace_seconds: for requests in progress at shutdown. body: of error responses, see `Net`.
    """
    bounds = replace(patience, connections=places(patience.connections))
    config = uvicorn.Config(
        Net(app, body) if body else Net(app),
        http=type("BoundedConnection", (Connection,), {"patience": bounds}),
        loop="asyncio",
        ws="none",
        lifespan="on",
        backlog=max(1, bounds.connections // TURN),
        access_log=False,
        log_level=logging.ERROR,  # warnings are about invalid requests
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=grace_seconds,
        h11_max_incomplete_event_size=HEAD_BYTES,
    )
    return Server(config)
