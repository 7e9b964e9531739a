"""The ledger → a copy of it beside, checked before it takes the place of the last good one."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING

from pipeline.errors import LedgerError
from pipeline.ledger.database import BACKUP_NAME, FILE_NAME, restore_hint, translated_errors
from pipeline.storage import PART, disk_error, sync_folder

if TYPE_CHECKING:
    from pathlib import Path


def back_up(connection: sqlite3.Connection, folder: Path) -> None:
    """Copy the ledger by SQLite's online backup, whole or not at all.

    Raises LedgerError where it is damaged (the last good copy stays), and DiskFull where a copy cannot be written.
    """
    part = folder / f".{BACKUP_NAME}{PART}"
    try:
        part.unlink(missing_ok=True)
        with translated_errors(folder / FILE_NAME):
            _copy(connection, part, folder)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(folder / BACKUP_NAME)
        sync_folder(folder)
    except OSError as reason:
        raise disk_error(reason, folder) from None
    finally:
        with contextlib.suppress(OSError):  # gone already, or the first reason is the one to tell
            part.unlink()


def _copy(connection: sqlite3.Connection, part: Path, folder: Path) -> None:
    """Write the copy, and read it through: a damaged ledger must not take the place of a good copy."""
    with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as copy:
        connection.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, with nothing beside it
        found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise LedgerError(f"the ledger {folder / FILE_NAME} is damaged: {found}; {restore_hint(folder / FILE_NAME)}")
