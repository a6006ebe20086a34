"""A real HTTP server on loopback that plays a scoring endpoint, well or badly."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.calls.chat_server import Reply


def scores(*values: Any, **whole: Any) -> Reply:
    return Reply(json.dumps(whole or {"scores": list(values)}).encode())


class ScoreServer:
    """Answers every POST with `behave(body, n)`, n counting from 1; `with` starts and stops it."""

    def __init__(self, behave: Callable[[dict[str, Any], int], Reply]) -> None:
        self.behave = behave
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.probes = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/score"

    def __enter__(self) -> "ScoreServer":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                outer.headers.append(dict(self.headers))
                self._send(outer.behave(outer.bodies[-1], len(outer.bodies)))

            def do_GET(self) -> None:
                outer.probes += 1
                self._send(Reply(b"", 405))

            def _send(self, reply: Reply) -> None:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                length = len(reply.body) if reply.promised_length is None else reply.promised_length
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
