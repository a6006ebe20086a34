"""Access to the page: only a browser that opened the printed link, at this address."""

import hmac
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from alignment.serving.connection import ADMITTED

ENTRANCE = "/enter"
HEADERS = {
    # Only the page's own scripts and styles, so that an answer rendered as markup would have no effect.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that opened a printed link."""

    annotator: str | None  # of the link; None: the page asks for a name


class SessionManager:
    """One-time tokens and the sessions that they opened."""

    def __init__(self, announce: Callable[[str, str | None], None]) -> None:
        self._announce = announce  # called with every new token and its annotator
        self._tokens: dict[str, str | None] = {}  # token → annotator it is for
        self._used: dict[str, str | None] = {}
        self._sessions: dict[str, Session] = {}

    def new_token(self, annotator: str | None = None) -> None:
        """Make a token that opens one session."""
        token = secrets.token_urlsafe(24)
        self._tokens[token] = annotator
        self._announce(token, annotator)

    def exchange(self, token: str) -> str | None:
        """Return the secret of a new session for a token, or None.

        A used token is rejected; because its holder received it, a new one is printed once in its place.
        """
        if token in self._used:
            self.new_token(self._used.pop(token))
            return None
        if token not in self._tokens:
            return None
        annotator = self._tokens.pop(token)
        self._used[token] = annotator
        secret = secrets.token_urlsafe(32)
        self._sessions[secret] = Session(annotator)
        return secret

    def session(self, secret: str | None) -> Session | None:
        """Return the session of a cookie's secret."""
        found = None
        for known, session in self._sessions.items():
            if secret is not None and hmac.compare_digest(known.encode(), secret.encode()):
                found = session
        return found


class Guard:
    """ASGI middleware: checks host, origin and cookie before anything else, and sets the headers of every answer."""

    def __init__(self, app: ASGIApp, *, sessions: SessionManager, hosts: Iterable[str], cookie: str) -> None:
        self.app = app
        self.sessions = sessions
        self.hosts = frozenset(host.lower() for host in hosts)  # as "name:port"
        self.cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await PlainTextResponse(refusal, 403)(scope, receive, send_with_headers)
            return
        await self.app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        # Other names that resolve to this machine are refused (DNS rebinding).
        if len(hosts) != 1 or hosts[0].lower() not in self.hosts:
            return "This page is not served under that name; open the link that was printed.\n"
        origins = headers.getlist("origin")
        own = f"http://{hosts[0].lower()}"
        if (scope["method"] not in ("GET", "HEAD") or origins) and [origin.lower() for origin in origins] != [own]:
            return "Requests from other pages are refused.\n"
        if scope["path"] == ENTRANCE:
            return None
        session = self.sessions.session(cookie_parser(headers.get("cookie", "")).get(self.cookie))
        if session is None:
            return "Open the link that `alignment annotate` printed in its terminal.\n"
        scope.setdefault("state", {}).update({"session": session, ADMITTED: True})
        return None
