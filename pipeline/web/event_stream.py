"""The ledger's changes → events for everyone who looks: one reader for all of them, about once a second."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError
from pipeline.ledger.database import FILE_NAME, named_errors, open_for_reading
from pipeline.ledger.lock import find_owner
from pipeline.reports.next_command import commands
from pipeline.web.snapshot import NEWEST, landed, pictures, read_snapshot

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from pipeline.config.load import Config

POLL_SECONDS = 1.0
HEARTBEAT_SECONDS = 15.0
_STALE_SECONDS = 5.0  # after which a run's speed is told again, though nothing has landed
_SHARE = 10  # a look at a large ledger takes no more than a tenth of the time
_WAITING = 64  # events that one who looks may be behind


_NOTHING: dict[str, Any] = {"jobs": [], "run": None, "providers": []}


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look at the ledger found: all but the pictures, the newest of these, and which of them are new."""

    snapshot: dict[str, Any]
    newest: list[dict[str, Any]]
    new: list[dict[str, Any]]


class EventStream:
    """Reads the ledger beside a run, and tells what has changed. Only `follow` reads; the others listen."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._command = commands(config).line("run")
        self._ended = asyncio.Event()
        self._listeners: set[asyncio.Queue[bytes]] = set()
        self._state: bytes | None = None
        self._newest: list[dict[str, Any]] = []
        # what follows is touched by the thread that looks alone
        self._connection: sqlite3.Connection | None = None
        self._file: object = None
        self._seen: tuple[Any, ...] = ()
        self._read_at = 0.0
        self._known: set[int] = set()
        self._landed: list[dict[str, Any]] = []

    async def follow(self) -> None:
        """Look at the ledger until `end`. Not to be cancelled: a thread may be reading from the connection."""
        while not self._ended.is_set():
            began = time.monotonic()
            look = await asyncio.to_thread(self._look)
            if look is not None:
                self._publish(look)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(POLL_SECONDS, _SHARE * (time.monotonic() - began))):
                    await self._ended.wait()
        self._close()

    def end(self) -> None:
        """Let `follow` end after the look that it is at, and everyone who listens go."""
        self._ended.set()
        for queue in self._listeners:
            queue.put_nowait(b"")

    @contextlib.contextmanager
    def listening(self) -> Iterator[asyncio.Queue[bytes]]:
        """Give a queue that has what is known now, and gets what happens; the empty event is the last."""
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        if self._state is not None:
            queue.put_nowait(self._state)
        if self._newest:
            queue.put_nowait(_event("pictures", self._newest))
        self._listeners.add(queue)
        try:
            yield queue
        finally:
            self._listeners.discard(queue)

    def _publish(self, look: _Look) -> None:
        """Keep what is known now for those who come, and tell the others what is new of it."""
        state = _event("state", {**look.snapshot, "command": self._command})
        changed, self._state, self._newest = state != self._state, state, look.newest
        if changed:
            self._tell(state)
        if look.new:
            self._tell(_event("pictures", look.new))

    def _tell(self, event: bytes) -> None:
        for queue in list(self._listeners):
            queue.put_nowait(event)
            if queue.qsize() > _WAITING:  # the browser comes back by itself, and is told all anew
                self._listeners.discard(queue)
                queue.put_nowait(b"")

    def _look(self) -> _Look | None:
        """Read what has changed since the last look, if anything. A ledger that cannot be read is told."""
        try:
            with named_errors(self._config.output / FILE_NAME):
                return self._read()
        except PipelineError as error:
            self._close()
            return _Look({**_NOTHING, "trouble": str(error)}, [], [])

    def _read(self) -> _Look | None:
        connection = self._open()
        if connection is None:
            return _Look(_NOTHING, [], [])
        owner = find_owner(self._config.output, connection)
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        now = time.time()
        seen = (version, owner)
        if seen == self._seen and (owner is None or now - self._read_at < _STALE_SECONDS):
            return None
        self._seen, self._read_at = seen, now
        connection.execute("BEGIN")  # one moment of the ledger
        try:
            snapshot = read_snapshot(connection, self._config.providers, owner, now)
            stored = landed(connection)
            fresh = [pk for pk in stored if pk not in self._known]
            new = pictures(connection, fresh[-NEWEST:])
        finally:
            connection.execute("COMMIT")
        self._known = set(stored)
        self._landed = [*self._landed, *new][-NEWEST:]
        return _Look(snapshot, self._landed, new)

    def _open(self) -> sqlite3.Connection | None:
        """Open the ledger where there is one, and anew where another has taken its place."""
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
        self._known, self._landed = set(), []


def _event(name: str, value: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(value)}\n\n".encode()
