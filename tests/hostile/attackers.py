"""The pages' commands as an attacker finds them: started, with an honest client beside, and their logs watched."""

import contextlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-the-test"


class Target:
    """A served command; `trusted` are the header lines of a client that may ask, `stranger` of one that may not."""

    name = path = ""
    body: bytes
    trusted: list[str]
    stranger: list[str]

    def __init__(self, *words: str, folder: Path, **environment: str) -> None:
        command = [sys.executable, "-m", "alignment.cli", *words, "--port", "0"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=folder
        )
        self.lines: list[str] = []
        self.url = self._address()
        self.port = int(re.search(r":(\d+)", self.url.partition("//")[2])[1])
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _address(self) -> str:
        for line in self.process.stdout:
            self.lines.append(line)
            if found := re.search(r"http://[\w.]+:\d+/\S*[\w-]", line):
                return found[0]
        raise AssertionError(f"it did not start: {self.lines}")

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line)

    def memory(self) -> int:
        """Megabytes that the process has at most had in memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) // 1024

    def connect(self, seconds: float = 20) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=seconds)

    def request(self, body: bytes | None = None, *, method="POST", trusted=True, more=(), length=None) -> bytes:
        body = self.body if body is None else body
        size = f"Content-Length: {len(body) if length is None else length}"
        chunked = any(line.lower().startswith("transfer-encoding") for line in more)
        lines = [f"{method} {self.path} HTTP/1.1", *(self.trusted if trusted else self.stranger)]
        lines += [*([] if chunked else [size]), *more, "", ""]
        return "\r\n".join(lines).encode() + body

    def send(self, text: bytes, seconds: float = 30) -> bytes:
        """Send, and return what comes back until the server closes or is silent for so long."""
        found = b""
        with self.connect() as wire, contextlib.suppress(OSError):
            with contextlib.suppress(OSError):
                wire.sendall(text)
            wire.settimeout(seconds)
            while part := wire.recv(65536):
                found += part
        return found

    def honest(self) -> float:
        """Ask as a client that may; return the seconds until the answer. It must be right."""
        raise NotImplementedError

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(10)
        self.process.stdout.close()


class Annotate(Target):
    """`alignment annotate`, entered."""

    name, path = "annotate", "/api/label"
    body = b'{"annotator": "mallory", "item": "none", "view": "x", "verdict": "skipped"}'

    def __init__(self, folder: Path) -> None:
        rows = [{"prompt": f"Q{n}", "responses": [f"a{n}", f"b{n}"], "ranks": [1, 2]} for n in range(2000)]
        source = folder / "x.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        super().__init__("annotate", str(source), folder=folder)
        self.store = folder / "x.calls.sqlite"
        self.base = self.url.partition("/enter")[0]
        jar = CookieJar()
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(jar)
        )
        self.opener.addheaders = [("Origin", self.base)]
        self.opener.open(self.url, timeout=30).close()
        host = self.base.partition("//")[2]
        (cookie,) = jar
        self.stranger = [f"Host: {host}", f"Origin: {self.base}", "Content-Type: application/json"]
        self.trusted = [*self.stranger, f"Cookie: {cookie.name}={cookie.value}"]
        self.saved = 0

    def _call(self, path: str, body: object = None) -> dict:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"})
        with self.opener.open(request, timeout=60) as reply:
            return json.load(reply)

    def honest(self) -> float:
        began = time.monotonic()
        view = self._call("/api/next?annotator=Anna")["next"]
        label = {"annotator": "Anna", "item": view["item"], "view": view["view"], "verdict": "abstain", "seconds": 1}
        told = self._call("/api/label", label)
        self.saved += 1
        assert told["done"] == self.saved
        return time.monotonic() - began


class Serve(Target):
    """`alignment serve-reward` of a tiny reward model."""

    name, path = "serve-reward", "/score"
    body = b'{"prompts": ["p"], "answers": ["the cat"]}'

    def __init__(self, folder: Path, model: str) -> None:
        super().__init__("serve-reward", model, folder=folder, ALIGNMENT_REWARD_KEY=TOKEN)
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.score = None
        self.trusted = ["Host: x", f"Authorization: Bearer {TOKEN}"]
        self.stranger = ["Host: x", "Authorization: Bearer guess"]

    def honest(self) -> float:
        began = time.monotonic()
        request = urllib.request.Request(self.url, self.body, {"Authorization": f"Bearer {TOKEN}"})
        with self.opener.open(request, timeout=60) as reply:
            (score,) = json.load(reply)["scores"]
        self.score = score if self.score is None else self.score
        assert abs(score - self.score) < 1e-4
        return time.monotonic() - began


def leave(wire: socket.socket, how: str) -> None:
    """Leave a connection: `fin`, `rst`, or `half`, which closes the sending side and waits."""
    with contextlib.suppress(OSError):
        if how == "rst":
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif how == "half":
            wire.shutdown(socket.SHUT_WR)
            wire.settimeout(0.5)
            wire.recv(100)
    wire.close()
