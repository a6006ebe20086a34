"""A real HTTP server on loopback that plays an OpenAI-compatible endpoint, well or badly."""

import json
import math
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FENCE = re.compile(r"<(request|answer-A|answer-B)-([0-9a-f]{12})>\n(.*?)\n</\1-\2>", re.DOTALL)


@dataclass
class Reply:
    """What goes over the wire."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    promised_length: int | None = None  # Content-Length, where it lies


def fenced(prompt: str) -> dict[str, str]:
    """Read request and answers out of a judge's prompt by their tags, as an honest model would."""
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


class ChatServer:
    """Answers every POST with `behave(prompt, n)`, n counting from 1; `with` starts and stops it."""

    def __init__(self, behave: Callable[[str, int], Reply]) -> None:
        self.behave = behave
        self.prompts: list[str] = []  # received, in order
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.probes: list[str] = []  # paths of GET requests
        self.probe_reply: Callable[[], Reply] = lambda: failure(404)  # few servers list their models
        self.answered: Counter[str] = Counter()  # prompts whose answer went out whole
        self.in_flight = 0
        self.most_in_flight = 0
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> "ChatServer":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = request["messages"][0]["content"]  # the question, whatever was said since
                with outer.lock:
                    outer.prompts.append(prompt)
                    outer.requests.append(request)
                    outer.keys.append(self.headers.get("Authorization"))
                    count = len(outer.prompts)
                    outer.in_flight += 1
                    outer.most_in_flight = max(outer.most_in_flight, outer.in_flight)
                try:
                    self._send(outer.behave(prompt, count), prompt)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True
                finally:
                    with outer.lock:
                        outer.in_flight -= 1

            def do_GET(self) -> None:
                outer.probes.append(self.path)
                reply = outer.probe_reply()
                self._send(replace(reply, headers={**reply.headers, "Connection": "close"}), "")

            def _send(self, reply: Reply, prompt: str) -> None:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                length = len(reply.body) if reply.promised_length is None else reply.promised_length
                self.send_header("Content-Length", str(length))
                self.end_headers()
                if reply.status == 200 and prompt:
                    with outer.lock:
                        outer.answered[prompt] += 1
                self.wfile.write(reply.body)
                if length != len(reply.body):
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        return Handler
