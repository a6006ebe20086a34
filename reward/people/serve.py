"""Serves the annotation page until Ctrl-C, and writes the labels' file after each change of the store."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignment.data.source_rows import OnBadRow
from alignment.errors import AlignmentError
from alignment.serving.address import listen
from alignment.serving.extra import require_extra
from reward.people.annotation_queue import AnnotationQueue, Rules
from reward.people.items import Ask, Place, load_items, place_of, read_guidelines
from reward.people.labels import rows_of, write_rows
from reward.people.store import PeopleStore

WRITE_EVERY_SECONDS = 2.0
GRACE_SECONDS = 3  # for open requests, after Ctrl-C
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of `alignment annotate`."""

    run: Path
    output: Path | None = None
    entry: Mapping[str, Any] = field(default_factory=dict)  # keys of a recipe's data set entry
    on_bad_row: OnBadRow = "stop"
    ask: Ask = "rank"
    guidelines: Path | None = None
    annotators: tuple[str, ...] = ()
    rules: Rules = field(default_factory=Rules)
    limit: int | None = None
    host: str = "127.0.0.1"
    port: int = 8765
    allow_hosts: tuple[str, ...] = ()


def export(run: Path, output: Path | None, tell: Tell, *, ask: Ask = "rank") -> None:
    """Write the labels so far, without a server.

    Raises: AlignmentError if nobody has labelled anything.
    """
    place = place_of(run, output, ask)
    if not place.store.is_file():
        raise AlignmentError(f"{place.store} does not exist: {run} has no labels yet.")
    with PeopleStore(place.store) as store:
        rows = rows_of(ask, store.labels(), store.items())
    if not rows:
        raise AlignmentError(f"{place.store} has no label of a person; start `alignment annotate {run}` first.")
    write_rows(place.output, rows)
    tell(f"{place.output}: {len(rows)} labels of {len({row['provenance']['annotator'] for row in rows})} people")


def annotate(settings: Settings, tell: Tell) -> None:
    """Serve the page until it is interrupted.

    Raises: AlignmentError if there is nothing to ask, the store is in use or the address cannot be had.
    """
    require_extra("annotate")
    place = place_of(settings.run, settings.output, settings.ask)
    guidelines, guidelines_hash = read_guidelines(settings.guidelines)
    items = load_items(
        place, ask=settings.ask, limit=settings.limit, entry=settings.entry, on_bad_row=settings.on_bad_row
    )
    with contextlib.closing(listen(settings.host, settings.port)) as listener, PeopleStore(place.store) as store:
        _keep_what_is_there(place, store, settings.ask)
        queue = AnnotationQueue(items, store, settings.rules, guidelines=guidelines, guidelines_hash=guidelines_hash)
        writer = Writer(store, place.output, settings.ask)
        tell(f"{len(items)} items of {place.source}; labels go to {place.store} and {place.output}")
        listener.listen()  # before the link is printed, so that early connections wait and are not refused
        try:
            _serve(settings, queue, writer, listener, tell)
        except KeyboardInterrupt:
            pass
        finally:
            writer.write()
        tell(f"{place.output}: {writer.written} labels")


def _keep_what_is_there(place: Place, store: PeopleStore, ask: Ask) -> None:
    """Refuse to write over labels that did not come from this store."""
    if place.output.exists() and place.output.stat().st_size and not rows_of(ask, store.labels(), store.items()):
        raise AlignmentError(
            f"{place.output} exists, and its labels are not in {place.store}, so they would be lost. Move it "
            "elsewhere, or name another --output."
        )


class Writer:
    """Writes the store's labels whenever there are new ones."""

    def __init__(self, store: PeopleStore, output: Path, ask: Ask = "rank") -> None:
        self.store = store
        self.output = output
        self.ask = ask
        self.written = 0  # rows in the file
        self._items = store.items()
        self._last: list[int] | None = None  # numbers of the labels in the file

    def write(self) -> None:
        """Write the file again if a label was added or deleted."""
        labels = self.store.labels()
        numbers = [label.number for label in labels]
        if numbers == self._last or not (numbers or self.output.exists()):
            return
        rows = rows_of(self.ask, labels, self._items)
        write_rows(self.output, rows)
        self.written, self._last = len(rows), numbers

    async def keep_writing(self, tell: Tell) -> None:
        """Write every few seconds, less often if writing takes long, until cancelled.

        A failure is reported once and tried again: the labels are in the store, and people can continue.
        """
        took, told = 0.0, ""
        while True:
            await asyncio.sleep(max(WRITE_EVERY_SECONDS, 20 * took))
            began = time.monotonic()
            try:
                self.write()
                told = ""
            except AlignmentError as error:
                if str(error) != told:
                    tell(f"{error} The labels are in {self.store.path}; writing the file is tried again.")
                told = str(error)
            took = time.monotonic() - began


def _serve(settings: Settings, queue: AnnotationQueue, writer: Writer, listener: socket.socket, tell: Tell) -> None:
    from alignment.serving.server import server
    from reward.people.app import build_app
    from reward.people.sessions import ENTRANCE, SessionManager

    port = listener.getsockname()[1]
    names = _names(settings)

    def announce(token: str, annotator: str | None) -> None:
        whose = f"{annotator}: " if annotator is not None else ""
        tell(f"{whose}http://{names[0]}:{port}{ENTRANCE}?token={token}")

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        task = asyncio.create_task(writer.keep_writing(tell))
        yield
        task.cancel()

    sessions = SessionManager(announce)
    tell("Open in a browser; each link works once. Ctrl-C ends, the same command goes on.")
    for annotator in settings.annotators or (None,):
        sessions.new_token(None if annotator is None else queue.person(annotator))
    hosts = [f"{name}:{port}" for name in names]
    app = build_app(queue, sessions, hosts=hosts, cookie=f"annotate-{port}", lifespan=lifespan)
    server(app, grace_seconds=GRACE_SECONDS).run(sockets=[listener])


def _names(settings: Settings) -> list[str]:
    """Return the host names of the page; the first is printed."""
    loopback = ["127.0.0.1", "localhost", "[::1]"]
    given = f"[{settings.host}]" if ":" in settings.host else settings.host
    own = [] if given in ("0.0.0.0", "[::]") else [given]
    return list(dict.fromkeys([*settings.allow_hosts, *own, *loopback]))
