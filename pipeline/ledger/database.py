"""The SQLite file that is the queue, the truth and the receipt: opened, migrated, and its errors translated."""

from __future__ import annotations

import contextlib
import shlex
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import DiskFull, LedgerError, PipelineError
from pipeline.storage import make_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FILE_NAME = "ledger.sqlite3"
BACKUP_NAME = "ledger.backup.sqlite3"

_SCHEMA = Path(__file__).with_name("schema.sql")
_BUSY_SECONDS = 60.0  # a submit beside a run waits for the other's transaction; each is short
_ASK_AGAIN = 0.001  # seconds


def _create(connection: sqlite3.Connection) -> None:
    for statement in _SCHEMA.read_text(encoding="utf-8").split(";\n"):
        connection.execute(statement)


def _add_wait(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE request ADD COLUMN wait_until REAL")  # by the server's wish


MIGRATIONS: list[Callable[[sqlite3.Connection], None]] = [_create, _add_wait]
"""Each brings the ledger from version k to k + 1; `PRAGMA user_version` counts them. Only ever append."""


def open_ledger(folder: Path) -> sqlite3.Connection:
    """Open the ledger of an output folder, made and migrated where needed. Raises LedgerError and DiskFull."""
    path = folder / FILE_NAME
    with named_errors(path):
        try:
            make_folder(folder)
        except OSError as reason:
            raise LedgerError(
                f"{folder} cannot be made: {reason.strerror or reason}; choose another `output`"
            ) from None
        _refuse_to_begin_anew(path)
        connection = _connect(str(path))
        with _closed_on_error(connection):
            patiently(connection, "PRAGMA journal_mode = WAL", _BUSY_SECONDS)
            _migrate(connection, path)
        return connection


def _refuse_to_begin_anew(path: Path) -> None:
    """Refuse where the ledger is gone and its copy is not: a new one would have everything paid again."""
    gone = not path.exists() or path.stat().st_size == 0
    if gone and path.with_name(BACKUP_NAME).exists():
        what = f"the ledger {path} is {'empty' if path.exists() else 'gone'}; {way_back(path)}"
        raise LedgerError(f"{what}; to begin anew, move the whole folder away")


def open_for_reading(folder: Path) -> sqlite3.Connection | None:
    """Open the ledger to look at it; None where there is none. Raises LedgerError."""
    path = folder / FILE_NAME
    if not path.exists():
        return None
    with named_errors(path):
        connection = _connect(str(path))
        with _closed_on_error(connection):
            version = _version(connection)
            if version == 0:
                connection.close()
                return None
            if version != len(MIGRATIONS):
                _migrate(connection, path)
            connection.execute("PRAGMA query_only = ON")
        return connection


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    with _closed_on_error(connection):
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    return connection


@contextlib.contextmanager
def _closed_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    version = _version(connection)
    if version > len(MIGRATIONS):
        what = f"{path} was written by a newer version of this program (ledger {version}, known here {len(MIGRATIONS)})"
        raise LedgerError(f"{what}: update image-batch-pipeline, or choose another `output`")
    while version < len(MIGRATIONS):
        with transaction(connection):
            version = _version(connection)  # again: another process may have been faster
            if version < len(MIGRATIONS):
                MIGRATIONS[version](connection)
                connection.execute(f"PRAGMA user_version = {version + 1}")


def patiently(connection: sqlite3.Connection, statement: str, seconds: float) -> None:
    """Execute a statement as soon as another process lets us, within so many seconds.

    SQLite itself would ask every 100 ms in the end, while a large submit leaves the ledger for shorter moments; and of
    two processes that make the ledger at once it tells one that it is locked, without any patience.
    """
    give_up = time.monotonic() + seconds
    while True:
        try:
            connection.execute(statement)
        except sqlite3.OperationalError as reason:
            if reason.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= give_up:
                raise
            time.sleep(_ASK_AGAIN)
        else:
            return


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Write everything in the with-block, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")  # a full disk may show here, and leaves the transaction open
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def named_errors(path: Path | str) -> Iterator[None]:
    """Turn what SQLite raises into a sentence about the ledger."""
    try:
        yield
    except sqlite3.Error as reason:
        raise translate(reason, path) from None
    except UnicodeDecodeError as reason:  # text that is none any more: Python's sqlite3 lets it through as it is
        raise LedgerError(f"the ledger {path} is damaged: {reason}; {way_back(Path(path))}") from None


def translate(reason: sqlite3.Error, path: Path | str = FILE_NAME) -> PipelineError | sqlite3.Error:
    """Give our error for one of SQLite's: no room, no right to write, held by another, or damaged.

    A statement that the ledger's own rules refuse is a bug of ours, and stays what it is.
    """
    if isinstance(reason, sqlite3.IntegrityError | sqlite3.InterfaceError | sqlite3.ProgrammingError):
        return reason
    code = getattr(reason, "sqlite_errorcode", 0) & 0xFF
    if code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}:
        return DiskFull(f"the ledger {path} cannot be written: {reason}; make room, then `pipeline run` goes on")
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
        return LedgerError(
            f"the ledger {path} cannot be written: {reason}; mend its rights, or choose another `output`"
        )
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return LedgerError(f"the ledger {path} is held by another program: {reason}")
    return LedgerError(f"the ledger {path} is damaged: {reason}; {way_back(Path(path))}")


def way_back(path: Path) -> str:
    """Say how to go on with a damaged ledger: its copy, of when, and the command to take it."""
    copy = path.with_name(BACKUP_NAME)
    try:
        taken = time.strftime("%Y-%m-%d %H:%M", time.localtime(copy.stat().st_mtime))
    except OSError:
        return "there is no copy of it: move it away and submit the jobs again, or put a copy of your own back"
    names = [shlex.quote(str(path.with_name(f"{path.name}{end}"))) for end in ("", "-wal", "-shm")]
    command = f"rm -f {' '.join(names[1:])} && cp {shlex.quote(str(copy))} {names[0]}"
    return f"{copy} is a copy of {taken}, and what was made later is not in it; take it with: {command}"
