"""HTTP servers on loopback: their base class, and one that imitates an OpenAI-compatible endpoint."""

import json
import math
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

Server = TypeVar("Server", bound="ReplyServer")
FENCE = re.compile(r"<(request|answer-A|answer-B)-([0-9a-f]{12})>\n(.*?)\n</\1-\2>", re.DOTALL)


@dataclass
class Reply:
    """An HTTP response."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    promised_length: int | None = None  # Content-Length, if it is wrong


def fenced(prompt: str) -> dict[str, str]:
    """Return the request and the answers in a judge's prompt, by their tags."""
    return {kind: text for kind, _, text in FENCE.findall(prompt)}


def completion(text: Any, *, finish: str = "stop", p_first: float | None = None, **message: Any) -> Reply:
    """Return a chat completion; `p_first` adds log-probabilities for a reply that is one letter."""
    choice: dict[str, Any] = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": text, **message},
    }
    if p_first is not None:
        top = [
            {"token": "A", "logprob": math.log(p_first), "bytes": [65]},
            {"token": "B", "logprob": math.log(1 - p_first), "bytes": [66]},
        ]
        choice["logprobs"] = {"content": [{"token": text, "logprob": 0.0, "bytes": None, "top_logprobs": top}]}
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": "toy-2026", "choices": [choice]}
    return Reply(json.dumps(body).encode())


def failure(status: int, text: str = "no", **headers: str) -> Reply:
    body = json.dumps({"error": {"message": text, "type": "error", "code": None}}).encode()
    return Reply(body, status, {"Content-Type": "application/json", **headers})


class ReplyServer:
    """Serves on loopback while `with` is open; subclasses answer POST with `post` and GET with `get`."""

    def __init__(self, path: str) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}{path}"

    def __enter__(self: Server) -> Server:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def post(self, body: dict[str, Any], headers: Message, send: Callable[[Reply], None]) -> None:
        raise NotImplementedError

    def get(self, path: str) -> Reply:
        raise NotImplementedError

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                try:
                    outer.post(body, self.headers, self._send)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def do_GET(self) -> None:
                reply = outer.get(self.path)
                self._send(replace(reply, headers={**reply.headers, "Connection": "close"}))

            def _send(self, reply: Reply) -> None:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                length = len(reply.body) if reply.promised_length is None else reply.promised_length
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(reply.body)
                if length != len(reply.body):
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        return Handler


class ChatServer(ReplyServer):
    """Answers every POST with `behave(prompt, n)`, n counting from 1."""

    def __init__(self, behave: Callable[[str, int], Reply]) -> None:
        self.behave = behave
        self.prompts: list[str] = []  # received, in order
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.probes: list[str] = []  # paths of GET requests
        self.probe_reply: Callable[[], Reply] = lambda: failure(404)  # few servers list their models
        self.answered: Counter[str] = Counter()  # prompts by the number of replies of status 200
        self.in_flight = 0
        self.most_in_flight = 0
        self.lock = threading.Lock()
        super().__init__("/v1")

    def post(self, body: dict[str, Any], headers: Message, send: Callable[[Reply], None]) -> None:
        prompt = body["messages"][0]["content"]  # the question, without later messages
        with self.lock:
            self.prompts.append(prompt)
            self.requests.append(body)
            self.keys.append(headers.get("Authorization"))
            count = len(self.prompts)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            reply = self.behave(prompt, count)
            with self.lock:
                self.answered[prompt] += reply.status == 200
            send(reply)
        finally:
            with self.lock:
                self.in_flight -= 1

    def get(self, path: str) -> Reply:
        self.probes.append(path)
        return self.probe_reply()
