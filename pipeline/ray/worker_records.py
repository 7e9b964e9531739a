"""Record of the workers in the ledger, once a second: for `status`, and for the next run if this one is killed."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from typing import TYPE_CHECKING

from pipeline.background import background_tasks
from pipeline.errors import PipelineError
from pipeline.ledger.database import open_ledger
from pipeline.ledger.workers import LEASE_SECONDS, forget_workers, record_workers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from pipeline.ray.pool import Pool

_SECONDS = 1.0
_AHEAD = 5.0
"""How long leases may be extended by one record: the ledger knows the end of a lease before a worker has it."""


class WorkerRecords:
    """Writes the record over a connection of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written_at = 0.0  # on the monotonic clock

    def may_renew(self) -> bool:
        """Return whether a lease that is extended now ends before the moment that the ledger knows."""
        return time.monotonic() < self._written_at + _AHEAD

    @contextlib.asynccontextmanager
    async def kept(self, pool: Pool) -> AsyncIterator[None]:
        """Keep the record current within the block, and delete it after it."""
        await asyncio.to_thread(self._write, pool)
        ended = asyncio.Event()
        try:
            async with background_tasks() as tasks:
                task = tasks.create_task(self._keep(pool, ended), name="record of workers")
                try:
                    yield
                finally:
                    ended.set()  # a thread that writes cannot be cancelled, and would write after the deletion
                    await asyncio.wait([task])
        finally:
            await asyncio.to_thread(self._forget)

    async def _keep(self, pool: Pool, ended: asyncio.Event) -> None:
        while True:
            try:
                async with asyncio.timeout(_SECONDS):
                    await ended.wait()
                    return
            except TimeoutError:
                with contextlib.suppress(PipelineError, sqlite3.Error):  # a full disk: leases end
                    await asyncio.to_thread(self._write, pool)

    def _write(self, pool: Pool) -> None:
        before = time.monotonic()
        with contextlib.closing(open_ledger(self._folder)) as connection:
            record_workers(connection, pool.rows(), time.time() + _AHEAD + LEASE_SECONDS)
        self._written_at = before

    def _forget(self) -> None:
        with (
            contextlib.suppress(PipelineError, sqlite3.Error),
            contextlib.closing(open_ledger(self._folder)) as connection,
        ):
            forget_workers(connection)
