"""Reading what a client sends: bounded in bytes, in time and in what it becomes in memory."""

import asyncio
import json
from typing import Any

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from alignment.serving.net import one_line

SECONDS = 30.0  # for a body to arrive whole
SMALL_BYTES = 256 * 1024  # always find room
ROOM_BYTES = 64 * 2**20  # for all larger bodies that one server holds, until their requests are answered
VALUES = 2**18  # lists, objects and items of one body
RETRY_SECONDS = 1


class Refused(HTTPException):
    """A request that is not taken: an HTTP status with one line."""


class Room:
    """The memory for large bodies that a server shares among all its requests."""

    def __init__(self, most: int = ROOM_BYTES) -> None:
        self.most, self.held = most, 0
        self.parsing = asyncio.Lock()  # parsing holds up all others; they get their turn between two large bodies

    def take(self, size: int) -> None:
        """Take `size` more bytes.

        Raises: Refused where they are not free.
        """
        if self.held + size > self.most:
            raise Refused(503, "the server holds as many large requests as it may; ask again in a moment.",
                          {"Retry-After": str(RETRY_SECONDS)})  # fmt: skip
        self.held += size

    def give_back(self, size: int) -> None:
        """Free `size` bytes."""
        self.held -= size


class Body:
    """A request's body; its room is free again when the context ends."""

    def __init__(self, request: Request, room: Room, *, most: int, advice: str, seconds: float = SECONDS) -> None:
        self._request, self._room, self._most, self._seconds = request, room, most, seconds
        self._too_large = Refused(413, f"the body is larger than {most} bytes; {advice}.")
        self._taken = 0

    async def __aenter__(self) -> "Body":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._room.give_back(self._taken)

    async def json(self) -> Any:
        """Read and parse the body.

        Raises: Refused where it is too large or too slow, breaks off, is encoded, or is no JSON.
        """
        body = await self._read()
        if len(body) <= SMALL_BYTES:
            return parse(body)
        async with self._room.parsing:
            value = parse(body)
            await asyncio.sleep(0)
        return value

    async def _read(self) -> bytes:
        headers = self._request.headers
        if headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise Refused(415, "the body has a Content-Encoding; send it plain.")
        if len(length := headers.get("content-length", "0")) > 19 or int(length) > self._most:
            raise self._too_large
        body = bytearray()
        try:
            with anyio.fail_after(self._seconds):
                async for chunk in self._request.stream():
                    body += chunk
                    if len(body) > self._most:
                        raise self._too_large
                    self._take(len(body))
        except TimeoutError:
            raise Refused(408, f"the body did not arrive within {self._seconds:g} seconds.") from None
        except ClientDisconnect:
            raise Refused(400, "the body broke off.") from None
        return bytes(body)

    def _take(self, size: int) -> None:
        if size > SMALL_BYTES:
            self._room.take(size - self._taken)
            self._taken = size


def parse(body: bytes) -> Any:
    """Parse JSON.

    Raises: Refused where it is none, has a key twice, or would become far larger in memory than it is.
    """
    if _values(body) > VALUES:
        raise Refused(413, f"the body holds more than {VALUES} values; send less at once.")
    try:
        return json.loads(body, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise Refused(400, one_line(f"the body is not JSON: {error}")) from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise ValueError(f"the key {key!r} is given twice")
        value[key] = item
    return value


def _values(body: bytes) -> int:
    """About how many values a body holds: what opens or separates them, outside its strings where there are many."""
    if _marks(body) <= VALUES:
        return _marks(body)
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if plain.count(b'"') > 4 * VALUES:
        return VALUES + 1
    return _marks(b"".join(plain.split(b'"')[::2]))


def _marks(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")
