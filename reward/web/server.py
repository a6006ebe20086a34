"""uvicorn, set up so that no client holds up the others."""

import logging
from dataclasses import replace

import uvicorn
from starlette.types import ASGIApp

from reward.web.connection import HEAD_BYTES, PATIENCE, Connection, Patience, places
from reward.web.net import Net


def server(app: ASGIApp, *, grace_seconds: int, patience: Patience = PATIENCE) -> uvicorn.Server:
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
        backlog=bounds.connections,  # that wait in the system; asyncio accepts as many in one turn
        access_log=False,
        log_level=logging.ERROR,  # its warnings are of what clients did
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=grace_seconds,
        h11_max_incomplete_event_size=HEAD_BYTES,
    )
    return uvicorn.Server(config)
