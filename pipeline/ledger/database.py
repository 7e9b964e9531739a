"""The SQLite file that holds the queue, all results and all costs: opened, migrated, and its errors translated."""

from __future__ import annotations

import contextlib
import shlex
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import BadInput, DiskFull, LedgerError, PipelineError
from pipeline.file_descriptors import none_free, none_was_free
from pipeline.files import make_folder, make_private
from pipeline.ledger.error_kind import kind_of_json
from pipeline.ledger.migrations import MIGRATIONS
from pipeline.ledger.rendezvous_hashing import rendezvous
from pipeline.storage import LEDGER_BACKUP_FILE, LEDGER_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE_NAME = LEDGER_FILE
BACKUP_NAME = LEDGER_BACKUP_FILE

_BUSY_SECONDS = 60.0  # a submit beside a run waits for the other's transaction; each is short
NO_LOCKS_HINT = (
    "the folder seems to lie on a network drive or a file system without locks; choose an `output` on a local disk"
)
_LOCK_CODES = frozenset(
    {
        sqlite3.SQLITE_IOERR_LOCK,
        sqlite3.SQLITE_IOERR_RDLOCK,
        sqlite3.SQLITE_IOERR_UNLOCK,
        sqlite3.SQLITE_IOERR_CHECKRESERVEDLOCK,
        sqlite3.SQLITE_IOERR_BLOCKED,
        sqlite3.SQLITE_IOERR_SHMLOCK,
        sqlite3.SQLITE_IOERR_SHMMAP,
        sqlite3.SQLITE_IOERR_SHMOPEN,
    }
)
"""Extended codes of locks and of shared memory, which network drives lack."""
_NO_ROOM_CODES = frozenset({sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_FULL})
_ASK_AGAIN = 0.001  # seconds


def open_ledger(folder: Path, *, shared: bool = False) -> sqlite3.Connection:
    """Open the ledger of an output folder; create or migrate it if needed. Raises LedgerError and DiskFull.

    It holds prompts and live URLs: unless `shared`, it is for its owner alone, and so is a folder that is created.
    """
    path = folder / FILE_NAME
    with translated_errors(path):
        try:
            make_folder(folder, mode=0o777 if shared else 0o700)
        except OSError as reason:
            raise LedgerError(
                f"{folder} cannot be created: {reason.strerror or reason}; choose another `output`"
            ) from None
        _refuse_to_start_over(path)
        connection = _connect(str(path))
        with _closed_on_error(connection):
            if not shared:
                make_private(folder, (FILE_NAME, f"{FILE_NAME}-wal", f"{FILE_NAME}-shm", BACKUP_NAME))
            execute_when_free(connection, "PRAGMA journal_mode = WAL", _BUSY_SECONDS)
            _migrate(connection, path)
        return connection


def file_mode(folder: Path) -> int:
    """Return the mode of the files that repeat what the ledger of a folder holds: the ledger's own."""
    path = folder / FILE_NAME
    return path.stat().st_mode & 0o666 if path.exists() else 0o600


def _execute_first(connection: sqlite3.Connection, statement: str, path: Path) -> None:
    """Execute the first statement that needs a lock; if it is busy, notice at once if nothing can be locked here."""
    try:
        connection.execute(statement)
    except sqlite3.OperationalError as reason:
        if reason.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        if not supports_sqlite_locks(path):
            raise LedgerError(f"the ledger {path} cannot be locked: {reason}; {NO_LOCKS_HINT}") from None
        execute_when_free(connection, statement, _BUSY_SECONDS)


def supports_sqlite_locks(path: Path) -> bool:
    """Return whether SQLite can lock a file of its own beside the ledger."""
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
            connection = sqlite3.connect(Path(folder) / path.name, timeout=0, isolation_level=None)
            with contextlib.closing(connection):
                connection.execute("BEGIN EXCLUSIVE")
                connection.execute("ROLLBACK")
    except sqlite3.OperationalError as reason:
        return not _is_lock_error(reason) and reason.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY
    except OSError:  # of the folder: another error
        return True
    return True


def _is_lock_error(reason: sqlite3.Error) -> bool:
    """Return whether the operating system refused a lock, or SQLite's protocol of locks failed."""
    code = getattr(reason, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_PROTOCOL or code in _LOCK_CODES


def _refuse_to_start_over(path: Path) -> None:
    """Raise LedgerError if the ledger is gone but its copy is not: with a new one, everything would be paid again."""
    gone = not path.exists() or path.stat().st_size == 0
    if gone and path.with_name(BACKUP_NAME).exists():
        what = f"the ledger {path} is {'empty' if path.exists() else 'gone'}; {restore_hint(path)}"
        raise LedgerError(f"{what}; to start over, move the whole folder away")


def is_absent(folder: Path) -> bool:
    """Return whether an output folder has no ledger, and had none: there is no copy of one."""
    return not any((folder / name).exists() for name in (FILE_NAME, BACKUP_NAME))


def open_for_reading(folder: Path) -> sqlite3.Connection | None:
    """Open the ledger to read from it, on a full disk too; return None if there is none. Raises LedgerError."""
    path = folder / FILE_NAME
    if not path.exists():
        return None
    with translated_errors(path):
        try:
            return _open_for_reading(path)
        except sqlite3.OperationalError as reason:
            if reason.sqlite_errorcode not in _NO_ROOM_CODES:
                raise
            return _open_for_reading(path, is_alone=True)


def _open_for_reading(path: Path, *, is_alone: bool = False) -> sqlite3.Connection | None:
    connection = _connect(str(path), is_alone=is_alone)
    with _closed_on_error(connection):
        version = _version(connection)
        if version == 0:
            connection.close()
            return None
        if version != len(MIGRATIONS):
            _migrate(connection, path)
        connection.execute("PRAGMA query_only = ON")
    return connection


@contextlib.contextmanager
def reading(folder: Path, job: str | None = None) -> Iterator[sqlite3.Connection]:
    """Open the ledger of an output folder to read from it, in a context manager; an empty one in memory if none exists.

    `job` is a name that must be in it. Raises BadInput if there is no ledger but a name, and LedgerError.
    """
    connection = open_for_reading(folder)
    if connection is None:
        if job is not None:
            raise _no_such_job(job, folder)
        connection = _connect(":memory:")
        for migration in MIGRATIONS:
            migration(connection)
    with contextlib.closing(connection), translated_errors(folder / FILE_NAME):
        yield connection


@contextlib.contextmanager
def writing(folder: Path, job: str | None = None, *, shared: bool = False) -> Iterator[sqlite3.Connection]:
    """Open the ledger of an output folder to change it, in a context manager; it is created if none exists.

    `job` is a name that must be in it. Raises BadInput if there is no ledger but a name, and what `open_ledger` raises.
    """
    if job is not None and not (folder / FILE_NAME).exists():
        raise _no_such_job(job, folder)
    with contextlib.closing(open_ledger(folder, shared=shared)) as connection, translated_errors(folder / FILE_NAME):
        yield connection


def _no_such_job(job: str, folder: Path) -> BadInput:
    return BadInput(f"there is no job `{job}`; nothing has been submitted to {folder} yet")


def _connect(path: str, *, is_alone: bool = False) -> sqlite3.Connection:
    """Open a connection; one that is alone excludes others, and needs no shared memory beside the ledger."""
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    with _closed_on_error(connection):
        connection.row_factory = sqlite3.Row
        connection.create_function("error_kind", 1, kind_of_json, deterministic=True)
        connection.create_function("rendezvous", -1, rendezvous, deterministic=True)
        if is_alone:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        _execute_first(connection, "PRAGMA synchronous = FULL", Path(path))
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000:.0f}")
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
    if version < len(MIGRATIONS):
        with transaction(connection):
            version = _version(connection)  # again: another process may have been faster
            for migrate in MIGRATIONS[version:]:
                migrate(connection)
            connection.execute(f"PRAGMA user_version = {max(version, len(MIGRATIONS))}")


def execute_when_free(connection: sqlite3.Connection, statement: str, seconds: float) -> None:
    """Execute a statement that needs a lock, and retry it every millisecond for up to so many seconds while it is busy.

    SQLite's own busy handler waits up to 100 ms between two tries, while a large submit releases the ledger for shorter
    moments; and if two processes create the ledger at the same time, it fails one of them at once.
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
    """Commit everything that is written in the with-block, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")  # a full disk may show here, and leaves the transaction open
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def read_transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """A read transaction: every SELECT in the with-block sees the same state, even beside a working run."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("COMMIT")


def change_counter(connection: sqlite3.Connection) -> int:
    """Return a number that changes when another connection has changed the ledger."""
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


@contextlib.contextmanager
def translated_errors(path: Path | str) -> Iterator[None]:
    """Raise SQLite's errors as ours, with a sentence about this ledger."""
    try:
        yield
    except sqlite3.Error as reason:
        raise translate_error(reason, path) from None
    except UnicodeDecodeError as reason:  # damaged text, which Python's sqlite3 does not report as its own error
        raise LedgerError(f"the ledger {path} is damaged: {reason}; {restore_hint(Path(path))}") from None


def translate_error(reason: sqlite3.Error, path: Path | str = FILE_NAME) -> PipelineError | sqlite3.Error:
    """Return our error for one of SQLite's: disk full, read-only, locked, or damaged.

    A violated constraint is a bug of ours and is returned as it is.
    """
    if isinstance(reason, sqlite3.IntegrityError | sqlite3.InterfaceError | sqlite3.ProgrammingError):
        return reason
    code = getattr(reason, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_CANTOPEN and none_free():
        return none_was_free(f"the ledger {path} cannot be opened")
    if _is_lock_error(reason):
        return LedgerError(f"the ledger {path} cannot be locked: {reason}; {NO_LOCKS_HINT}")
    what = f"the ledger {path} cannot be written: {reason}"
    free = "free some space, then run `pipeline run` to continue"
    if code == sqlite3.SQLITE_FULL:
        return DiskFull(f"{what}; {free}")
    if code == sqlite3.SQLITE_IOERR:
        hint = "if there is room, check the disk, or, for a network drive, choose another `output`"
        return DiskFull(f"{what}; {free}; {hint}")
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
        return LedgerError(f"{what}; change its permissions, or choose another `output`")
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return LedgerError(f"the ledger {path} is locked by another program: {reason}; end that program, and try again")
    return LedgerError(f"the ledger {path} is damaged: {reason}; {restore_hint(Path(path))}")


def restore_hint(path: Path) -> str:
    """Return how to continue with a damaged ledger: which copy there is, of when, and the command that restores it."""
    copy = path.with_name(BACKUP_NAME)
    try:
        taken = time.strftime("%Y-%m-%d %H:%M", time.localtime(copy.stat().st_mtime))
    except OSError:
        return "there is no copy of it: move it away and submit the jobs again, or restore a copy of your own"
    names = [shlex.quote(str(path.with_name(f"{path.name}{end}"))) for end in ("", "-wal", "-shm")]
    command = f"rm -f {' '.join(names[1:])} && cp {shlex.quote(str(copy))} {names[0]}"
    return f"{copy} is a copy of {taken}, which lacks everything later; restore it with: {command}"
