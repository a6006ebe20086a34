"""Reading of request bodies with limits on bytes, time and memory."""

import asyncio
import json
from typing import Any

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from alignment.serving.net import one_line

SECONDS = 30.0  # for a body to arrive completely
SMALL_BYTES = 256 * 1024  # bodies up to this size do not count towards ROOM_BYTES
ROOM_BYTES = 64 * 2**20  # of all larger bodies that the server holds until their requests are answered
VALUES = 2**18  # lists, objects and items in one body
RETRY_SECONDS = 1


class Refused(HTTPException):
    """A rejected request: an HTTP status with a message of one line."""


class Room:
    """The memory for large bodies, shared by all requests of a server."""

    def __init__(self, most: int = ROOM_BYTES) -> None:
        self.most, self.held = most, 0
        self.parsing = asyncio.Lock()  # parsing blocks the loop; other requests run between two large bodies

    def take(self, size: int) -> None:
        """Reserve `size` more bytes.

        Raises: Refused if they are not free.
        """
        if self.held + size > self.most:
            raise Refused(503, "the server already holds the maximum of large requests; retry later.",
                          {"Retry-After": str(RETRY_SECONDS)})  # fmt: skip
        self.held += size

    def give_back(self, size: int) -> None:
        """Free `size` bytes."""
        self.held -= size


class Body:
    """A request's body; the context manager frees its memory at the end."""

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

        Raises: Refused if it is too large, too slow, incomplete, encoded, or not JSON.
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

    Raises: Refused if it is not JSON, has a key twice, or has so many values that it needs too much memory.
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
    """Estimate the number of values in a body: its brackets and commas, without those in strings if there are many."""
    if _marks(body) <= VALUES:
        return _marks(body)
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if plain.count(b'"') > 4 * VALUES:
        return VALUES + 1
    return _marks(b"".join(plain.split(b'"')[::2]))


def _marks(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")
