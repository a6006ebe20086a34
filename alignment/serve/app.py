"""The web application: OpenAI's endpoints for models, chat completions and completions."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from alignment.errors import AlignmentError, DataError
from alignment.serve.adapters import Adapters
from alignment.serve.echo import echoed
from alignment.serve.engine import Delivery
from alignment.serve.faults import ApiError, error_body, error_response
from alignment.serve.models import Models, Served
from alignment.serve.replies import ChatForm, Form, TextForm, Whole, usage
from alignment.serve.requests import Settings, chat_request, text_request
from alignment.serve.sampling import Sampled
from alignment.serving.batching import Busy
from alignment.serving.body import RETRY_SECONDS, Body, Room
from alignment.serving.clients import require_token, unless_gone
from alignment.serving.net import LOG, described, one_line

BODY_BYTES = 2**23
LONG_BODY = 2**16  # bytes; the prompt of a longer one is tokenised in another thread


class Mailbox:
    """Takes pieces from the engines' threads into the loop's."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None

    def post(self, delivered: list[Delivery]) -> None:
        """Hand pieces to the answers' requests; called in an engine's thread."""
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
                self.loop.call_soon_threadsafe(_deliver, delivered)


def build_app(
    models: Models, adapters: Adapters, token: str, *, mailbox: Mailbox, started: Callable[[], None] = lambda: None
) -> Starlette:
    """Return the application; it closes the engines when it ends.

    Args:
        token: required in each request. mailbox: that the engines post to. started: called once the server listens.
    """
    room = Room()

    async def read(request: Request) -> Any:
        require_token(request, token)
        async with Body(request, room, most=BODY_BYTES, advice="send less at once") as body:
            return await body.json()

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", "in_flight": sum(engine.in_flight for engine in models.engines)})

    async def list_models(request: Request) -> Response:
        require_token(request, token)
        return JSONResponse({"object": "list", "data": [_described(served) for served in models.all()]})

    async def one_model(request: Request) -> Response:
        require_token(request, token)
        return JSONResponse(_described(models.get(request.path_params["name"])))

    async def chat(request: Request) -> Response:
        asked = chat_request(await read(request))
        with models.using(asked.model) as served:
            if not served.policy.chats:
                raise ApiError(f"{served.name!r} has no chat template; use /v1/completions.", "model")
            ids = await _in_thread_if_long(request, lambda: served.chat_ids(asked.messages, asked.tools))
            form = ChatForm(served.name, served.texts, asked.settings.logprobs, calls=asked.tools is not None)
            return await _respond(request, Sampled(served, [ids], asked.settings, "messages"), form)

    async def complete(request: Request) -> Response:
        asked = text_request(await read(request))
        with models.using(asked.model) as served:
            prompts = await _in_thread_if_long(
                request, lambda: [served.text_ids(one) if isinstance(one, str) else one for one in asked.prompts]
            )
            form = TextForm(served.name, served.texts, asked.settings.logprobs)
            sampled = Sampled(served, prompts, asked.settings)
            before = await echoed(sampled) if asked.echo else {}
            sampled.begin_with(before)
            return await _respond(request, sampled, form, before)

    async def load(request: Request) -> Response:
        name = await asyncio.to_thread(adapters.load, await read(request))
        return Response(f"Success: LoRA adapter '{name}' added successfully.", media_type="text/plain")

    async def unload(request: Request) -> Response:
        name = await asyncio.to_thread(adapters.unload, await read(request))
        return Response(f"Success: LoRA adapter '{name}' removed successfully.", media_type="text/plain")

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        mailbox.loop = asyncio.get_running_loop()
        started()
        yield
        await asyncio.to_thread(models.close)

    post = ["POST"]
    return Starlette(
        routes=[
            Route("/health", health),
            Route("/v1/models", list_models),
            Route("/v1/models/{name:path}", one_model),
            Route("/v1/chat/completions", chat, methods=post),
            Route("/v1/completions", complete, methods=post),
            Route("/v1/load_lora_adapter", load, methods=post),
            Route("/v1/unload_lora_adapter", unload, methods=post),
        ],
        exception_handlers={
            ApiError: _refused, DataError: _unreadable, Busy: _busy, HTTPException: _http, Exception: _failed,
        },
        lifespan=lifespan,
    )  # fmt: skip


async def _respond(request: Request, sampled: Sampled, form: Form, before: dict[int, Whole] | None = None) -> Response:
    """Return the answers, whole or as a stream of events.

    Args:
        before: what answers begin with, by their number.
    """
    if sampled.settings.streams:
        sampled.__enter__()  # here, so that a full queue is an error, not a stream; the stream leaves it
        return _Events(sampled, form, before or {})
    with sampled:
        answers = [Whole() for _ in range(len(sampled))]
        for number, whole in (before or {}).items():
            answers[number] = whole
        await unless_gone(request, _collect(sampled, answers))
    return JSONResponse(form.response(answers, sampled.prompt_tokens))


async def _collect(sampled: Sampled, answers: list[Whole]) -> None:
    async for pieces in sampled.pieces():
        for piece in pieces:
            answers[piece.choice].add(piece)


class _Events(StreamingResponse):
    """A stream of events, whose answers are stopped when it ends in any way."""

    def __init__(self, sampled: Sampled, form: Form, before: dict[int, Whole]) -> None:
        super().__init__(
            _events(sampled, form, before), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )
        self.sampled = sampled

    async def __call__(self, *asgi: Any) -> None:
        """Send the stream."""
        try:
            await super().__call__(*asgi)
        finally:
            self.sampled.__exit__()


async def _events(sampled: Sampled, form: Form, before: dict[int, Whole]) -> AsyncIterator[bytes]:
    settings: Settings = sampled.settings
    none = {"usage": None} if settings.include_usage else {}
    count = 0
    try:
        opening = [form.event(choices, none) for number in range(len(sampled)) if (choices := form.opening(number))]
        for number, whole in before.items():
            opening.append(form.event([form.choice(number, whole)], none))
        if opening:
            yield b"".join(opening)
        async for pieces in sampled.pieces():
            count += sum(piece.count for piece in pieces)
            yield b"".join(form.event([choice], none) for piece in pieces for choice in form.parts(piece))
        if settings.include_usage:
            yield form.event([], {"usage": usage(sampled.prompt_tokens, count)})
    except Exception as error:  # the response has begun, so the error is an event
        LOG.error("%s", one_line(described(error)))
        yield b"data: " + json.dumps(error_body(str(error), 500)).encode() + b"\n\n"
        return
    yield b"data: [DONE]\n\n"


async def _in_thread_if_long(request: Request, work: Callable[[], Any]) -> Any:
    if int(request.headers.get("content-length", LONG_BODY)) < LONG_BODY:
        return work()
    return await asyncio.to_thread(work)


def _described(served: Served) -> dict[str, Any]:
    source = served.policy.source
    parent = {"parent": source.base} if source.adapter is not None else {}
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "alignment",
        "root": served.policy.path,
        **parent,
        "max_model_len": served.base.context,
    }


def _deliver(delivered: list[Delivery]) -> None:
    for answer, piece in delivered:
        answer.deliver(piece)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body(), error.status)


def _unreadable(request: Request, error: Exception) -> Response:
    return error_response(str(error), 400)


def _busy(request: Request, error: Exception) -> Response:
    headers = {"Retry-After": str(RETRY_SECONDS)}
    return error_response(str(error), 429, code="server_busy", headers=headers)


def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = "invalid_api_key" if error.status_code == 401 else None
    detail = error.detail
    if error.status_code in (404, 405):
        detail = f"{request.method} {request.url.path[:100]} is not an endpoint of this server."
    return error_response(detail, error.status_code, code=code, headers=error.headers)


def _failed(request: Request, error: Exception) -> Response:
    return error_response(str(error) if isinstance(error, AlignmentError) else "the server failed; see its log.", 500)
