"""A client's connection: uvicorn's HTTP/1.1 protocol with a deadline for each phase.

uvicorn has no time-out for the header of a request, for an unread body or for a client that does not read the response,
and its `limit_concurrency` responds 503 to every client while idle connections fill it. Here a new connection replaces
the oldest idle one without a token.
"""

import asyncio
import contextlib
import resource
from dataclasses import dataclass
from typing import Any, Literal, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

ADMITTED = "admitted"  # key of a request's state: the application recognised the client's token or cookie
HEAD_BYTES = 16 * 1024  # of a request line with its headers
READ_BYTES = 64 * 1024
Phase = Literal["head", "idle", "busy", "sending", "lingering", "closing"]


@dataclass(frozen=True, slots=True)
class Patience:
    """The maximum number of connections, and the time limits of their phases."""

    connections: int = 512
    head_seconds: float = 10.0  # from the first byte of a request, or from the connection, to the end of the header
    idle_seconds: float = 15.0  # between two requests
    sending_seconds: float = 20.0  # for the client to read `sending_bytes` of the response, or the rest of it
    sending_bytes: int = 64 * 1024
    lingering_seconds: float = 5.0  # for discarding a rejected body, so that the client reads the response
    lingering_bytes: int = 64 * 2**20
    lines: int = 8_192  # of a chunked body; each chunk has two lines, and small chunks cost as much as large ones


PATIENCE = Patience()


class Transport:
    """A transport whose `close` first lets the protocol discard the rest of a body."""

    def __init__(self, transport: asyncio.Transport, protocol: "Connection") -> None:
        self._transport, self._protocol = transport, protocol

    def close(self) -> None:
        """Close now, or after the protocol has discarded the rest of a body."""
        if not self._protocol.linger():
            self._transport.close()

    def is_closing(self) -> bool:
        """Whether the connection reads no further request."""
        return self._protocol.lingering or self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Connection(H11Protocol):
    """uvicorn's protocol with deadlines, a maximum number of connections, and no traceback for invalid requests."""

    patience = PATIENCE

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.admitted = False
        self.lingering = False
        self.since = self.loop.time()  # when this phase began
        self.phase: Phase = "head"
        self._deadline: asyncio.TimerHandle | None = None
        self._unsent = 0  # bytes of the response that were unsent when the deadline was set
        self._lines = 0
        self._lingered = 0
        self._held = b""  # bytes of the requests after the current one

    # What asyncio calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection; if the maximum is reached, drop the oldest idle one."""
        if hasattr(transport, "max_size"):
            transport.max_size = READ_BYTES  # bytes that asyncio reads at once, which bounds the time of a callback
        super().connection_made(cast(asyncio.Transport, Transport(transport, self)))
        self._enter("head")
        if len(self.connections) > self.patience.connections:
            least = _least_useful(self.connections, self)
            self.refuse() if least is None else least.drop()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the deadline."""
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def data_received(self, data: bytes) -> None:
        """Read within the limits of the phase."""
        if self.lingering:
            self._lingered += len(data)
            if self._lingered > self.patience.lingering_bytes:
                self.drop()
            return
        self._settle()
        if self.phase == "idle":
            self._enter("head")
        if self.conn.their_state is h11.IDLE:
            # First only the header, which shows whether a body follows, and whether it is chunked.
            before = self.conn.trailing_data[0][-3:]
            end = (before + data).find(b"\r\n\r\n")
            cut = len(data) if end < 0 else end + 4 - len(before)
            if len(self.conn.trailing_data[0]) + cut > HEAD_BYTES:
                self.send_400_response(f"The request's header is larger than {HEAD_BYTES} bytes.")
                return
            self._feed(data[:cut])
            data = data[cut:]
        if not data or self.transport.is_closing():
            return
        if self.conn.their_state is h11.SEND_BODY:
            self._feed(data)
        else:
            self._hold(data)

    def pause_writing(self) -> None:
        """Start the deadline for the client to read."""
        super().pause_writing()
        self._settle()

    def resume_writing(self) -> None:
        """End that deadline."""
        super().resume_writing()
        self._settle()

    # What uvicorn calls

    def on_response_complete(self) -> None:
        """Continue with the next request, with this class's deadlines instead of uvicorn's."""
        self._lines = 0
        super().on_response_complete()
        self._unset_keepalive_if_required()
        self._settle()
        if self._held and not self.transport.is_closing():
            held, self._held = self._held, b""
            self.loop.call_soon(self.data_received, held)

    def send_400_response(self, msg: str) -> None:
        """Respond to invalid HTTP, unless another response has begun."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # its response can no longer be sent
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
            self._settle()
        else:
            self.drop()

    def shutdown(self) -> None:
        """Close, unless a request is in progress."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        elif self.lingering:
            self.drop()
        else:
            self.transport.close()

    # Phases

    def linger(self) -> bool:
        """Discard the rest of a body before closing: closing with unread bytes would discard the response too.

        Returns: whether there is a rest to discard.
        """
        if self.lingering:
            return True
        if self.conn.their_state not in (h11.SEND_BODY, h11.ERROR) or self.transport.is_closing():
            return False
        self.lingering = True
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._enter("lingering")
        return True

    def drop(self) -> None:
        """End the connection at once."""
        self.connections.discard(self)  # now, because connection_lost is called later
        self.lingering = False
        self.transport.abort()

    def refuse(self) -> None:
        """Respond 503: all connections have a request in progress."""
        self.connections.discard(self)
        self.transport.write(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n\r\n")
        self.transport.close()
        self._settle()

    def _feed(self, data: bytes) -> None:
        if self.conn.their_state is h11.SEND_BODY and any(name == b"transfer-encoding" for name, _ in self.headers):
            self._lines += data.count(b"\n")
            if self._lines > self.patience.lines:
                self.send_400_response(f"The body has more than {self.patience.lines // 2} chunks; send larger ones.")
                return
        super().data_received(data)
        self._unset_keepalive_if_required()
        self._settle()

    def _hold(self, data: bytes) -> None:
        """Keep bytes of the next request until the current one is answered; drop a client that sends too many."""
        self._held += data
        self.flow.pause_reading()
        if len(self._held) > READ_BYTES:
            self.drop()

    def _settle(self) -> None:
        """Enter the connection's current phase; if it is unchanged, its deadline continues."""
        phase = self._phase()
        if phase != self.phase:
            self._enter(phase)

    def _phase(self) -> Phase:
        if self.lingering:
            return "lingering"
        if self.transport.is_closing():
            return "closing"
        if self.flow.write_paused:
            return "sending"
        if self.cycle is not None and not self.cycle.response_complete:
            return "busy"
        if self.transport.get_write_buffer_size():
            return "sending"
        return "head" if self.conn.trailing_data[0] or self.cycle is None else "idle"

    def _enter(self, phase: Phase) -> None:
        if self.scope is not None and self.scope.get("state", {}).get(ADMITTED):
            self.admitted = True
        if self._deadline is not None:
            self._deadline.cancel()
        patience = self.patience
        seconds = {
            "head": patience.head_seconds,
            "idle": patience.idle_seconds,
            "sending": patience.sending_seconds,
            "closing": patience.sending_seconds,
            "lingering": patience.lingering_seconds,
        }.get(phase)  # a busy connection waits for the application, which has its own limits
        self.phase, self.since = phase, self.loop.time()
        self._unsent = self.transport.get_write_buffer_size()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._overdue)

    def _overdue(self) -> None:
        self._deadline = None
        phase = self._phase()
        if phase != self.phase:
            self._enter(phase)
        elif phase in ("sending", "closing") and self._took_enough():
            self._enter(phase)
        else:
            self.drop()

    def _took_enough(self) -> bool:
        return self._unsent - self.transport.get_write_buffer_size() >= self.patience.sending_bytes


def _least_useful(connections: set[Any], newest: Connection) -> Connection | None:
    """Return the connection to drop for a new one; None if all others have a complete request in progress.

    The order is: idle connections without a token, other idle ones, those whose body is incomplete. Among these, it
    chooses the oldest connection of the peer that has the most.
    """
    others = [one for one in connections if one is not newest]
    idle = [one for one in others if one.phase != "busy"]
    coming = [one for one in others if one.phase == "busy" and one.conn.their_state is h11.SEND_BODY]
    peers: dict[str, list[Connection]] = {}
    for one in [one for one in idle if not one.admitted] or idle or coming:
        peers.setdefault(one.client[0] if one.client else "", []).append(one)
    crowd = max(peers.values(), key=len, default=[])
    return min(crowd, key=lambda one: one.since, default=None)


def places(wanted: int) -> int:
    """Return how many connections this process can hold open; raises its limit of open files if it is allowed to.

    Half of the files are reserved for connections that are accepted at once, and for other uses.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * wanted + 128
    if soft != resource.RLIM_INFINITY and soft < needed:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with contextlib.suppress(OSError, ValueError):  # some systems allow less than their hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    return wanted if soft == resource.RLIM_INFINITY else max(8, min(wanted, (soft - 128) // 2))
