"""uvicorn, set up so that no client holds up the others."""

import logging
import socket
from dataclasses import replace

import uvicorn
from starlette.types import ASGIApp

from alignment.serving.connection import HEAD_BYTES, PATIENCE, Connection, Patience, places
from alignment.serving.net import Net

TURN = 8  # the share of the connections that are accepted at once, so that each is read before it could be dropped
WAITING = 1024  # connections that the system keeps until they are accepted


class Server(uvicorn.Server):
    """uvicorn's server, with a longer queue in the system than is accepted in one turn of the loop."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(WAITING)  # asyncio has one number for both


def server(app: ASGIApp, *, grace_seconds: int, patience: Patience = PATIENCE) -> Server:
    """Return a server of an application; `run(sockets=[...])` answers until it is told to end.

    Args:
        grace_seconds: for requests at work when it is told to end.
    """
    bounds = replace(patience, connections=places(patience.connections))
    config = uvicorn.Config(
        Net(app),
        http=type("BoundedConnection", (Connection,), {"patience": bounds}),
        loop="asyncio",
        ws="none",
        lifespan="on",
        backlog=max(1, bounds.connections // TURN),
        access_log=False,
        log_level=logging.ERROR,  # its warnings are of what clients did
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=grace_seconds,
        h11_max_incomplete_event_size=HEAD_BYTES,
    )
    return Server(config)
