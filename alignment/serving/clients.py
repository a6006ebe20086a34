"""Clients of a server: the token that admits one, and one that leaves before its response."""

import asyncio
import hmac
from collections.abc import Awaitable
from typing import TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from alignment.serving.connection import ADMITTED

Result = TypeVar("Result")


def require_token(request: Request, token: str) -> None:
    """Admit a request that carries the token.

    Raises: HTTPException if it does not.
    """
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        raise HTTPException(401, "send the header Authorization: Bearer TOKEN, with the token of the server.",
                            {"WWW-Authenticate": "Bearer"})  # fmt: skip
    request.scope.setdefault("state", {})[ADMITTED] = True


async def unless_gone(request: Request, result: Awaitable[Result]) -> Result:
    """Wait for a result, which is cancelled if the client disconnects.

    Raises: ClientDisconnect.
    """
    found = asyncio.ensure_future(result)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({found, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not found.done():
            raise ClientDisconnect
        return found.result()
    finally:
        found.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
