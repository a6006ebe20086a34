"""The web application: POST /score and GET /health."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from alignment.errors import DataError
from alignment.serving.batching import Batcher, Busy
from alignment.serving.body import RETRY_SECONDS, Body, Room
from alignment.serving.clients import require_token, unless_gone
from alignment.serving.net import one_line
from reward.serving.requests import LIMITS, Limits, rows_of


def build_app(
    batcher: Batcher, token: str, *, limits: Limits = LIMITS, started: Callable[[], None] = lambda: None
) -> Starlette:
    """Return the application; it closes the batcher when it ends.

    Args:
        token: required in each request. started: called once the server listens.
    """
    room = Room()

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "waiting": batcher.waiting})

    async def score(request: Request) -> Response:
        require_token(request, token)
        async with Body(request, room, most=limits.body_bytes, advice="send fewer answers at once") as body:
            scored = rows_of(await body.json(), limits)
            scored.client = request.client.host if request.client else ""
            return JSONResponse({"scores": await unless_gone(request, asyncio.wrap_future(batcher.submit(scored)))})

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        started()
        yield
        await asyncio.to_thread(batcher.close)

    return Starlette(
        routes=[Route("/health", health), Route("/score", score, methods=["POST"])],
        exception_handlers={DataError: _unreadable, Busy: _busy, HTTPException: _refused, Exception: _failed},
        lifespan=lifespan,
    )


def _unreadable(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": one_line(str(error))}, 422)


def _busy(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 503, {"Retry-After": str(RETRY_SECONDS)})


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": one_line(f"{type(error).__name__}: {error}")}, 500)
