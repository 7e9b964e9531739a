"""Group commit: many workers' writes share transactions, on a thread of their own.

Every write is on disk when its await returns. While one transaction commits, the next writes gather, so the number of
fsyncs follows the speed of the disk and not the number of workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from pipeline.errors import DiskFull
from pipeline.ledger.database import execute_when_free, translate_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from pipeline.storage import LocalStore

P = ParamSpec("P")
T = TypeVar("T")

_Write = tuple["asyncio.Future[Any]", "Callable[[sqlite3.Connection], Any]"]
_Result = tuple["asyncio.Future[Any]", Any, BaseException | None]

MOST_IN_ONE = 500
"""Writes in one transaction, at most, so that none waits long."""

PATIENCE = 10
"""How many times the connection's busy timeout (a minute) another process may lock the ledger before a write fails."""


class Writer:
    """An async context manager around the ledger's connection, which belongs to the thread while it is open."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._busy = int(connection.execute("PRAGMA busy_timeout").fetchone()[0])  # milliseconds
        self._patience = PATIENCE * self._busy / 1000
        self._path = str(connection.execute("PRAGMA database_list").fetchone()[2])
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._loop = asyncio.get_running_loop()
        self._unflushed: set[tuple[LocalStore, str]] = set()
        self.transactions = 0

    async def __aenter__(self) -> Self:
        self._connection.execute("PRAGMA busy_timeout = 0")
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        try:
            await asyncio.to_thread(self._thread.join)
        finally:
            self._thread.join()  # cancelled even here: what was handed in is on disk before the loop ends
            self._connection.execute(f"PRAGMA busy_timeout = {self._busy}")

    def do(
        self, statement: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        """Run `statement(connection, ...)` in the next transaction; the future has its result once that is on disk.

        A statement that raises is rolled back alone; one that shared its transaction may run twice, the first time in
        vain. The future raises what it raised, and PipelineError if SQLite fails. Whether it is awaited, or its waiter
        is cancelled, does not undo the write.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put((future, lambda connection: statement(connection, *args, **kwargs)))
        return future

    def post(
        self, statement: Callable[Concatenate[sqlite3.Connection, P], object], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Do the same for what the next start would recover anyway: nothing waits for it, and a failure is ignored."""
        self.do(statement, *args, **kwargs).add_done_callback(lambda future: future.cancelled() or future.exception())

    def flush_folder(self, images: LocalStore, job: str) -> None:
        """Make the names of a job's images durable before any write that is handed in after this commits.

        It is done once per transaction and not for every image; if it fails, those writes fail.
        """
        self._unflushed.add((images, job))

    def _flush_folders(self) -> None:
        while self._unflushed:
            images, job = self._unflushed.pop()  # before the sync: a folder handed in meanwhile is synced once more
            try:
                images.flush_folder(job)
            except DiskFull:
                self._unflushed.add((images, job))
                raise

    def _work(self) -> None:
        while batch := self._gather():
            try:
                results = self._commit(batch)
            except Exception as reason:  # noqa: BLE001 - each waiter hears of it, and the thread goes on for the others
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")  # SQLite may have done so itself
                results = [(future, None, self._our_error(reason)) for future, _ in batch]
            self._loop.call_soon_threadsafe(_deliver, results)

    def _gather(self) -> list[_Write]:
        """Wait for one write and return it with those that arrived meanwhile; empty at the end."""
        batch: list[_Write] = []
        write = self._queue.get()
        while write is not None:
            batch.append(write)
            if self._queue.empty() or len(batch) == MOST_IN_ONE:
                return batch
            write = self._queue.get()
        if batch:
            self._queue.put(None)
        return batch

    def _commit(self, batch: list[_Write]) -> list[_Result]:
        """Execute all writes together; if one raises, roll back and execute each again in a savepoint of its own.

        A savepoint around every write would cost as much as the write.
        """
        self._begin()
        try:
            results: list[_Result] = [(future, statement(self._connection), None) for future, statement in batch]
        except Exception:
            if not self._connection.in_transaction:  # SQLite undid everything: a full disk does that
                raise
            self._connection.execute("ROLLBACK")
            self._begin()
            results = [self._alone(*write) for write in batch]
        self._flush_folders()
        self._connection.execute("COMMIT")
        self.transactions += 1
        return results

    def _alone(self, future: asyncio.Future[Any], statement: Callable[[sqlite3.Connection], Any]) -> _Result:
        execute, value, error = self._connection.execute, None, None
        execute("SAVEPOINT one")
        try:
            value = statement(self._connection)
        except Exception as reason:
            if not self._connection.in_transaction:
                raise
            execute("ROLLBACK TO one")
            error = self._our_error(reason)
        execute("RELEASE one")
        return future, value, error

    def _begin(self) -> None:
        """Begin, however long another process writes: what waits here may be the record of a paid image."""
        execute_when_free(self._connection, "BEGIN IMMEDIATE", self._patience)

    def _our_error(self, reason: Exception) -> Exception:
        return translate_error(reason, self._path) if isinstance(reason, sqlite3.Error) else reason


def _deliver(results: list[_Result]) -> None:
    for future, value, error in results:
        if future.done():  # its waiter was cancelled
            continue
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
