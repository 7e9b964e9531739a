"""The versions of the ledger: each function changes the ledger of one version into that of the next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

_SCHEMA = Path(__file__).with_name("schema.sql")


def _create(connection: sqlite3.Connection) -> None:
    for statement in _SCHEMA.read_text(encoding="utf-8").split(";\n"):
        connection.execute(statement)


def _add_wait(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE request ADD COLUMN wait_until REAL")  # by the server's wish


def _add_quarantine(connection: sqlite3.Connection) -> None:
    """Add bytes that a provider returned as an image and that are not valid; `file` is relative to the job's folder.
    Add remarks on images that deviate from their format and are valid.
    """
    connection.execute(
        "CREATE TABLE quarantine (pk INTEGER PRIMARY KEY, request INTEGER NOT NULL REFERENCES request (pk),"
        " file TEXT NOT NULL, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, reason TEXT NOT NULL,"
        " UNIQUE (request, sha256)) STRICT"
    )
    connection.execute("ALTER TABLE image ADD COLUMN remark TEXT")


def _add_stops(connection: sqlite3.Connection) -> None:
    """Add what stopped jobs and providers last, and changes of folders that a kill must not leave half done."""
    connection.execute(
        "CREATE TABLE stop (pk INTEGER PRIMARY KEY, provider TEXT, job INTEGER REFERENCES job (pk), model TEXT,"
        " served_by TEXT, kind TEXT NOT NULL, message TEXT NOT NULL, http_status INTEGER, stopped_at REAL NOT NULL,"
        " last_attempt INTEGER NOT NULL) STRICT"  # that was recorded before it
    )
    connection.execute(  # from `folder`, a job's, to `target`; deleted if that is NULL
        "CREATE TABLE folder_change (pk INTEGER PRIMARY KEY, folder TEXT NOT NULL, target TEXT) STRICT"
    )


MIGRATIONS: list[Callable[[sqlite3.Connection], None]] = [_create, _add_wait, _add_quarantine, _add_stops]
"""Each brings the ledger from version k to k + 1; `PRAGMA user_version` counts them. Only ever append."""
