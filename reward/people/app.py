"""The HTTP application of the page: static files, and a JSON interface to the annotation queue."""

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from alignment.errors import AlignmentError
from alignment.serving.body import Body, Room
from alignment.serving.net import LOG, one_line
from reward.people.annotation_queue import AnnotationQueue, LabelRefused
from reward.people.sessions import ENTRANCE, Guard, Session, SessionManager

PAGE = Path(__file__).parent / "page"
FILES = {"/": "page.html", "/page.js": "page.js", "/page.css": "page.css"}
LARGEST_BODY = 64 * 1024  # bytes; a label takes a few hundred
Lifespan = Callable[[Starlette], AbstractAsyncContextManager[None]]


def build_app(
    queue: AnnotationQueue, sessions: SessionManager, *, hosts: list[str], cookie: str, lifespan: Lifespan | None = None
) -> Starlette:
    """Return the application.

    Args:
        hosts: names with ports under which it may be reached. cookie: the cookie's name.
    """
    room = Room()

    async def enter(request: Request) -> Response:
        if request.method != "GET":  # a HEAD request, for example of a link preview, must not use up the link
            raise LabelRefused("open the link in a browser", 405)
        secret = sessions.exchange(request.query_params.get("token", ""))
        if secret is None:
            return PlainTextResponse("This link is not valid any more; the terminal shows a new one.\n", 403)
        # Not a redirect: a browser that followed a link of another site would not send a strict cookie with it.
        response = HTMLResponse('<!doctype html><meta http-equiv="refresh" content="0;url=/"><title>Annotate</title>')
        response.set_cookie(cookie, secret, httponly=True, samesite="strict", path="/")
        return response

    async def state(request: Request) -> Response:
        session: Session = request.state.session
        return _json({"annotator": session.annotator, "guidelines": queue.guidelines, "items": len(queue.items)})

    async def following(request: Request) -> Response:
        person = _person(queue, request, request.query_params.get("annotator"))
        return _json({"next": queue.next(person), **_status(queue, person)})

    async def item(request: Request) -> Response:
        person = _person(queue, request, request.query_params.get("annotator"))
        return _json({"next": queue.look(person, request.path_params["key"]), **_status(queue, person)})

    async def label(request: Request) -> Response:
        body = await posted(request)
        person = _person(queue, request, body.get("annotator"))
        queue.submit(person, body.get("item"), body.get("view"), body.get("verdict"), body.get("seconds"))
        return _json({"next": queue.next(person), **_status(queue, person)})

    async def undo(request: Request) -> Response:
        body = await posted(request)
        person = _person(queue, request, body.get("annotator"))
        return _json({"next": queue.undo(person), **_status(queue, person)})

    async def static(request: Request) -> Response:
        return FileResponse(PAGE / FILES[request.url.path])

    async def posted(request: Request) -> dict[str, Any]:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise LabelRefused("the body must be application/json", 415)
        async with Body(request, room, most=LARGEST_BODY, advice="a label takes a few hundred") as body:
            value = await body.json()
        if not isinstance(value, dict):
            raise LabelRefused("the body is not a JSON object", 400)
        return value

    return Starlette(
        routes=[
            Route(ENTRANCE, enter, methods=["GET"]),
            *(Route(path, static, methods=["GET"]) for path in FILES),
            Route("/api/state", state, methods=["GET"]),
            Route("/api/next", following, methods=["GET"]),
            Route("/api/items/{key}", item, methods=["GET"]),
            Route("/api/label", label, methods=["POST"]),
            Route("/api/undo", undo, methods=["POST"]),
        ],
        middleware=[Middleware(Guard, sessions=sessions, hosts=hosts, cookie=cookie)],
        exception_handlers={AlignmentError: _not_taken, HTTPException: _refused},
        lifespan=lifespan,
    )


def _person(queue: AnnotationQueue, request: Request, name: Any) -> str:
    """Return the annotator of a request; the link of one person is valid for that person only."""
    session: Session = request.state.session
    person = queue.person(name)
    if session.annotator is not None and person != queue.person(session.annotator):
        raise LabelRefused(f"this link is for {session.annotator}", 403)
    return person


def _status(queue: AnnotationQueue, person: str) -> dict[str, Any]:
    return {"annotator": person, **queue.progress(person)}


async def _not_taken(_: Request, error: Exception) -> Response:
    if not isinstance(error, LabelRefused):  # an error of the store, for the person at the terminal
        LOG.error("%s", one_line(str(error)))
    return _json({"error": str(error)}, error.status if isinstance(error, LabelRefused) else 500)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = _json({"error": error.detail}, error.status_code)
    response.headers.update(error.headers or {})
    return response


def _json(value: Any, status: int = 200) -> Response:
    # ASCII, because an answer may contain lone surrogates, which UTF-8 cannot encode.
    return Response(json.dumps(value), status, media_type="application/json")
