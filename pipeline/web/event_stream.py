"""Sends the ledger's changes to every open page: one reader for all of them, about once a second."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from pipeline.ledger.database import (
    FILE_NAME,
    change_counter,
    open_for_reading,
    read_transaction,
    translated_errors,
)
from pipeline.ledger.lock import find_owner
from pipeline.ledger.queries import read_newest_images
from pipeline.reports.next_command import NextCommand
from pipeline.web.snapshot import NEWEST, read_shown_images, read_snapshot

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from pipeline.config.load import Config

POLL_SECONDS = 1.0
HEARTBEAT_SECONDS = 15.0
_STALE_SECONDS = 5.0  # after which a run's speed is sent again, though nothing has changed
_SHARE = 10  # reading a large ledger takes no more than a tenth of the time
_MOST_QUEUED = 64  # events by which a page may be behind
_WINDOW = 2000  # newest rows among which images are stored: more than there are calls in flight

_NOTHING: dict[str, Any] = {"jobs": [], "run": None, "providers": [], "minutes_left": None, "spent": None, "stops": []}


@dataclass(frozen=True, slots=True)
class _Changes:
    """What one reading of the ledger found: all but the images, the newest images, and those of them that are new."""

    snapshot: dict[str, Any]
    newest: list[dict[str, Any]]
    new: list[dict[str, Any]]


class EventStream:
    """Reads the ledger beside a run and sends what has changed. Only `follow` reads; pages listen."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._command = NextCommand.anywhere(config)
        self._ended = asyncio.Event()
        self._listeners: set[asyncio.Queue[bytes]] = set()
        self._state: bytes | None = None
        self._newest: list[dict[str, Any]] = []
        # what follows is for the reading thread alone
        self._connection: sqlite3.Connection | None = None
        self._file: object = None
        self._seen: tuple[Any, ...] = ()
        self._read_at = 0.0
        self._known: set[int] = set()
        self._newest_read: list[dict[str, Any]] = []

    async def follow(self) -> None:
        """Read the ledger until `end`. Must not be cancelled: a thread may be reading from the connection."""
        while not self._ended.is_set():
            began = time.monotonic()
            changes = await asyncio.to_thread(self._read_changes)
            if changes is not None:
                self._publish(changes)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(POLL_SECONDS, _SHARE * (time.monotonic() - began))):
                    await self._ended.wait()
        self._close()

    def end(self) -> None:
        """End `follow` after its current reading, and every listener."""
        self._ended.set()
        for queue in self._listeners:
            queue.put_nowait(b"")

    @contextlib.contextmanager
    def listening(self) -> Iterator[asyncio.Queue[bytes]]:
        """Register a queue that has the current state and receives what changes; an empty event is the last."""
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        if self._state is not None:
            queue.put_nowait(self._state)
        if self._newest:
            queue.put_nowait(_event("images", self._newest))
        self._listeners.add(queue)
        try:
            yield queue
        finally:
            self._listeners.discard(queue)

    def _publish(self, changes: _Changes) -> None:
        """Keep the current state for new listeners, and send what is new to the others."""
        state = _event("state", {**changes.snapshot, "command": self._command.line("run")})
        is_changed, self._state, self._newest = state != self._state, state, changes.newest
        if is_changed:
            self._tell(state)
        if changes.new:
            self._tell(_event("images", changes.new))

    def _tell(self, event: bytes) -> None:
        for queue in list(self._listeners):
            queue.put_nowait(event)
            if queue.qsize() > _MOST_QUEUED:  # the browser reconnects by itself and gets the whole state
                self._listeners.discard(queue)
                queue.put_nowait(b"")

    def _read_changes(self) -> _Changes | None:
        """Return what has changed since the last reading, if anything; or that the ledger cannot be read."""
        try:
            with translated_errors(self._config.output / FILE_NAME):
                return self._read()
        except PipelineError as error:
            self._close()
            return _Changes({**_NOTHING, "trouble": str(error)}, [], [])

    def _read(self) -> _Changes | None:
        connection = self._open()
        if connection is None:
            return _Changes(_NOTHING, [], [])
        owner = find_owner(self._config.output, connection)
        version = change_counter(connection)
        now = time.time()
        seen = (version, owner)
        if seen == self._seen and (owner is None or now - self._read_at < _STALE_SECONDS):
            return None
        self._seen, self._read_at = seen, now
        with read_transaction(connection):
            snapshot = read_snapshot(connection, self._config, owner, now, self._command)
            stored = read_newest_images(connection, _WINDOW)
            new = read_shown_images(connection, [pk for pk in stored if pk not in self._known][-NEWEST:])
        self._known = set(stored)
        self._newest_read = [*self._newest_read, *new][-NEWEST:]
        return _Changes(snapshot, self._newest_read, new)

    def _open(self) -> sqlite3.Connection | None:
        """Return a connection to the ledger if there is one; a new one if the file has been replaced."""
        path = self._config.output / FILE_NAME
        file = (path.stat().st_dev, path.stat().st_ino) if path.exists() else None
        if file != self._file:
            self._close()
        if self._connection is None and file is not None:
            self._connection, self._file = open_for_reading(self._config.output), file
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection, self._file, self._seen = None, None, ()
        self._known, self._newest_read = set(), []


def _event(name: str, value: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(value)}\n\n".encode()
