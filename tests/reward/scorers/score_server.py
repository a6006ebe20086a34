"""An HTTP server on loopback that imitates a scoring endpoint."""

import json
from collections.abc import Callable
from email.message import Message
from typing import Any

from tests.calls.chat_server import Reply, ReplyServer


def scores(*values: Any, **whole: Any) -> Reply:
    return Reply(json.dumps(whole or {"scores": list(values)}).encode())


class ScoreServer(ReplyServer):
    """Answers every POST with `behave(body, n)`, n counting from 1."""

    def __init__(self, behave: Callable[[dict[str, Any], int], Reply]) -> None:
        self.behave = behave
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.probes = 0
        super().__init__("/score")

    def post(self, body: dict[str, Any], headers: Message, send: Callable[[Reply], None]) -> None:
        self.bodies.append(body)
        self.headers.append(dict(headers))
        send(self.behave(body, len(self.bodies)))

    def get(self, path: str) -> Reply:
        self.probes += 1
        return Reply(b"", 405)
