"""Preparation of a ledger by the process that holds the folder's lock: its backup, its recovery, and found images."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from pipeline.errors import DiskFull
from pipeline.ledger.backup import back_up
from pipeline.ledger.recovery import recover
from pipeline.ledger.workers import LEASE_SECONDS, leases_end
from pipeline.stores import Stores

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from pipeline.config.load import Config
    from pipeline.engine.events import Listener


async def prepare_ledger(connection: sqlite3.Connection, folder: Path, emit: Listener) -> None:
    """Back up the ledger, and recover from a run that was killed, once its workers can send nothing any more."""
    back_up_ledger(connection, folder, emit)
    seconds = min(leases_end(connection) - time.time(), 2 * LEASE_SECONDS)
    if seconds > 0:
        from pipeline.engine.worker_events import AwaitingLeases

        emit(AwaitingLeases(seconds))
        await asyncio.sleep(seconds)
    recover(connection)


def record_found_images(connection: sqlite3.Connection, config: Config, emit: Listener) -> None:
    """Record images on disk that the ledger does not know, as far as manifests prove them, and report them.

    Only for the process that holds the folder's lock, once what it is to make is queued.
    """
    from pipeline.engine.events import ImagesFound
    from pipeline.reports.adopt import adopt_images

    adopted, unknown = adopt_images(connection, config.output, Stores.of(config).new)
    if adopted or unknown:
        emit(ImagesFound(adopted, len(unknown)))


def back_up_ledger(connection: sqlite3.Connection, folder: Path, emit: Listener) -> None:
    """Back up the ledger, before a run and after it. Raises LedgerError if it is damaged."""
    from pipeline.engine.events import BackupFailed

    try:
        back_up(connection, folder)
    except DiskFull as error:  # the backup is as large as the ledger; there may still be room for images
        emit(BackupFailed(error))
