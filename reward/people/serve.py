"""Serve the page until Ctrl-C, and keep `people.jsonl` in step with the store."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from alignment.errors import AlignmentError
from reward.people.desk import Desk, Rules
from reward.people.items import Ask, Place, load_items, place_of, read_guidelines
from reward.people.labels import rankings, write_rankings
from reward.people.store import PeopleStore

WRITE_EVERY_SECONDS = 2.0
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of `alignment annotate`."""

    run: Path
    output: Path | None = None
    ask: Ask = "rank"
    guidelines: Path | None = None
    annotators: tuple[str, ...] = ()
    rules: Rules = field(default_factory=Rules)
    limit: int | None = None
    host: str = "127.0.0.1"
    port: int = 8765
    allow_hosts: tuple[str, ...] = ()


def export(run: Path, output: Path | None, tell: Tell) -> None:
    """Write what people have said so far as rankings, without serving anything.

    Raises: AlignmentError where nobody has labelled anything.
    """
    place = place_of(run, output)
    if not place.store.is_file():
        raise AlignmentError(f"{place.store} does not exist: nobody has labelled anything of {run} yet.")
    with PeopleStore(place.store) as store:
        rows = rankings(store.labels(), store.items())
    if not rows:
        raise AlignmentError(f"{place.store} holds no label of a person; start `alignment annotate {run}` first.")
    write_rankings(place.output, rows)
    tell(f"{place.output}: {len(rows)} labels of {len({row.provenance['annotator'] for row in rows})} people")


def annotate(settings: Settings, tell: Tell) -> None:
    """Serve the page until it is interrupted.

    Raises: AlignmentError where there is nothing to ask, the store is in use or the address cannot be had.
    """
    place = place_of(settings.run, settings.output)
    guidelines, guidelines_hash = read_guidelines(settings.guidelines)
    items = load_items(place, ask=settings.ask, limit=settings.limit)
    with contextlib.closing(_listen(settings)) as listener, PeopleStore(place.store) as store:
        _keep_what_is_there(place, store)
        desk = Desk(items, store, settings.rules, guidelines=guidelines, guidelines_hash=guidelines_hash)
        writer = Writer(store, place.output)
        tell(f"{len(items)} items of {place.source}; labels go to {place.store} and {place.output}")
        try:
            _serve(settings, desk, writer, listener, tell)
        except KeyboardInterrupt:
            pass
        finally:
            writer.write()
        tell(f"{place.output}: {writer.written} labels")


def _keep_what_is_there(place: Place, store: PeopleStore) -> None:
    """Refuse to write over labels that did not come from this store."""
    if place.output.exists() and place.output.stat().st_size and not store.labels():
        raise AlignmentError(
            f"{place.output} exists, and {place.store} knows nothing of its labels, so they would be lost. Move it "
            "elsewhere, or name another --output."
        )


class Writer:
    """Writes the store's labels as rankings whenever there are new ones."""

    def __init__(self, store: PeopleStore, output: Path) -> None:
        self.store = store
        self.output = output
        self.written = 0  # rows in the file
        self._items = store.items()
        self._last: list[int] | None = None  # numbers of the labels in the file

    def write(self) -> None:
        """Write the file anew where a label was added or taken back."""
        labels = self.store.labels()
        numbers = [label.number for label in labels]
        if numbers == self._last or not (numbers or self.output.exists()):
            return
        rows = rankings(labels, self._items)
        write_rankings(self.output, rows)
        self.written, self._last = len(rows), numbers

    async def keep_writing(self) -> None:
        """Write every few seconds, more seldom where writing takes long, until cancelled."""
        took = 0.0
        while True:
            await asyncio.sleep(max(WRITE_EVERY_SECONDS, 20 * took))
            began = time.monotonic()
            self.write()
            took = time.monotonic() - began


def _serve(settings: Settings, desk: Desk, writer: Writer, listener: socket.socket, tell: Tell) -> None:
    try:
        import uvicorn
        from starlette.applications import Starlette

        from reward.people.app import build_app
        from reward.people.guard import ENTRANCE, Doorkeeper
    except ImportError as error:
        raise AlignmentError(
            f"alignment annotate needs {error.name}, which is in the extra serve: pip install -e '.[serve]'"
        ) from error

    port = listener.getsockname()[1]
    names = _names(settings)

    def announce(token: str, annotator: str | None) -> None:
        whose = f"{annotator}: " if annotator is not None else ""
        tell(f"{whose}http://{names[0]}:{port}{ENTRANCE}?token={token}")

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(writer.keep_writing())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            writer.write()

    doorkeeper = Doorkeeper(announce)
    tell("Open in a browser; each link works once. Ctrl-C ends, the same command goes on.")
    for annotator in settings.annotators or (None,):
        doorkeeper.new_token(None if annotator is None else desk.person(annotator))
    hosts = [f"{name}:{port}" for name in names]
    app = build_app(desk, doorkeeper, hosts=hosts, cookie=f"annotate-{port}", lifespan=lifespan)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=3,
        limit_concurrency=64,
        h11_max_incomplete_event_size=16 * 1024,
    )
    uvicorn.Server(config).run(sockets=[listener])


def _names(settings: Settings) -> list[str]:
    """Names under which a browser may ask for the page; the first is printed."""
    loopback = ["127.0.0.1", "localhost", "[::1]"]
    given = f"[{settings.host}]" if ":" in settings.host else settings.host
    own = [] if given in ("0.0.0.0", "[::]") else [given]
    return list(dict.fromkeys([*settings.allow_hosts, *own, *loopback]))


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen()  # before the link is printed: who is quick waits, and is not refused
    except (OSError, OverflowError) as error:
        listener.close()
        raise AlignmentError(
            f"{settings.host}:{settings.port} cannot be listened on ({getattr(error, 'strerror', None) or error}); "
            "name another --port, or --port 0 for any that is free."
        ) from error
    return listener
