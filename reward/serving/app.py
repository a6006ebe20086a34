"""The web application: POST /score and GET /health."""

import asyncio
import contextlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from alignment.errors import DataError
from reward.serving.batching import Batcher, Busy, rows_of

BODY_SECONDS = 60.0  # for a request to arrive whole
RETRY_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold."""

    body_bytes: int = 2**24
    answers: int = 4_096


def build_app(
    batcher: Batcher, token: str, *, limits: Limits = Limits(), started: Callable[[], None] = lambda: None
) -> Starlette:
    """Return the application; it closes the batcher when it ends.

    Args:
        token: whoever asks for scores must know it. started: called once the server listens.
    """

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "waiting": batcher.waiting})

    async def score(request: Request) -> Response:
        _require_token(request, token)
        asked = rows_of(_parsed(await _body(request, limits.body_bytes)), most_answers=limits.answers)
        return JSONResponse({"scores": await asyncio.wrap_future(batcher.ask(asked))})

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


def _require_token(request: Request, token: str) -> None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        raise HTTPException(401, "send the header Authorization: Bearer TOKEN, with the token that the server knows.",
                            {"WWW-Authenticate": "Bearer"})  # fmt: skip


async def _body(request: Request, most: int) -> bytes:
    """Read the body, and no more of it than may be."""
    too_large = HTTPException(413, f"the body is larger than {most} bytes; send fewer answers at once.")
    if int(request.headers.get("content-length") or 0) > most:
        raise too_large
    body = bytearray()
    try:
        with anyio.fail_after(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise too_large
    except TimeoutError:
        raise HTTPException(408, f"the body did not arrive within {BODY_SECONDS:g} seconds.") from None
    except ClientDisconnect:
        raise HTTPException(400, "the body broke off.") from None
    return bytes(body)


def _parsed(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is not JSON: {error}") from None


def _unreadable(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 422)


def _busy(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 503, {"Retry-After": str(RETRY_SECONDS)})


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 500)
