"""Copies the ledger, and checks the copy before it replaces the last good one."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING

from pipeline.errors import LedgerError
from pipeline.file_descriptors import when_free
from pipeline.files import PART, disk_error, sync_folder
from pipeline.ledger.database import BACKUP_NAME, FILE_NAME, file_mode, restore_hint, translated_errors

if TYPE_CHECKING:
    from pathlib import Path


def back_up(connection: sqlite3.Connection, folder: Path) -> None:
    """Copy the ledger by SQLite's online backup, whole or not at all.

    Raises LedgerError if it is damaged (the last good copy stays), and DiskFull if the copy cannot be written.
    """
    part = folder / f".{BACKUP_NAME}{PART}"
    try:
        part.unlink(missing_ok=True)
        with translated_errors(folder / FILE_NAME):
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, file_mode(folder)))
            _copy(connection, part, folder)
        with when_free(lambda: part.open("rb+")) as file:
            os.fsync(file.fileno())
        part.replace(folder / BACKUP_NAME)
        sync_folder(folder)
    except OSError as reason:
        raise disk_error(reason, folder) from None
    finally:
        with contextlib.suppress(OSError):  # renamed already, or the first reason is the one to report
            part.unlink()


def _copy(connection: sqlite3.Connection, part: Path, folder: Path) -> None:
    """Write the copy and check it: a damaged ledger must not replace a good copy."""
    with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as copy:
        connection.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # a single file, without -wal and -shm
        found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise LedgerError(f"the ledger {folder / FILE_NAME} is damaged: {found}; {restore_hint(folder / FILE_NAME)}")
