"""The lock of an output folder: one working run at a time, and who that is.

On a file system without locks, a file marks the owner. Unlike a lock it outlives a killed process, so the marker of a
process that is dead is taken over.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sqlite3
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from filelock import FileLock, Timeout

from pipeline.errors import ConfigError, FolderBusy
from pipeline.ledger.database import NO_LOCKS_HINT, transaction
from pipeline.ledger.folder_identity import HeldFolder
from pipeline.ledger.processes import is_alive, started_at
from pipeline.printable import printable
from pipeline.storage import RUN_LOCK_FILE, sweep_parts

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from filelock import BaseFileLock

    from pipeline.storage import LocalStore

_CLOCK_SECONDS = 3.0  # the starts of processes are known to a second
_UNSUPPORTED = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})
_NO_LOCKS = _UNSUPPORTED | {errno.ENOLCK, errno.EIO, errno.ESTALE, errno.EINVAL, errno.ETIMEDOUT}


@dataclass(frozen=True, slots=True)
class LockOwner:
    """The process that holds the lock; `who` names it with its host, `started_at` is in seconds since 1970."""

    who: str
    started_at: float


def _write_stderr(sentence: str) -> None:
    sys.stderr.write(f"{printable(sentence)}\n")


@contextlib.contextmanager
def run_lock(
    folder: Path,
    images: LocalStore,
    connection: sqlite3.Connection,
    if_busy: Callable[[], object],
    warn: Callable[[str], object] = _write_stderr,
) -> Iterator[HeldFolder]:
    """Hold the lock of an output folder, and delete the half-written files that a killed process left in it.

    Yields the folder as it is held. If another process holds it, call `if_busy` and raise FolderBusy that names the
    process. Raises ConfigError if the folder cannot be locked; if its file system has no locks, `warn` gets a sentence
    that says so.
    """
    try:
        lock = _acquire(folder, connection, warn)
    except Timeout:
        if_busy()
        row = connection.execute("SELECT * FROM holder").fetchone()
        who = f"process {row['pid']} on {row['host']}" if row else "another process"
        what = f"{who} is working on {folder}: it processes what is queued, or wait until it ends"
        raise FolderBusy(what) from None
    except OSError as reason:
        raise lock_error(reason, folder) from None
    with (
        contextlib.closing(_Held(lock)),
        _recorded(connection),
        contextlib.closing(HeldFolder(folder, images)) as held,
    ):
        for name in images.leftovers():
            images.delete(name)
        sweep_parts(folder, time.time())
        yield held


@contextlib.contextmanager
def _recorded(connection: sqlite3.Connection) -> Iterator[None]:
    """Remove the record of this process when the block ends: it may live on without the folder."""
    try:
        yield
    finally:
        with contextlib.suppress(sqlite3.Error):  # a full disk: the lock file says so, too
            connection.execute("DELETE FROM holder WHERE pid = ? AND host = ?", (os.getpid(), socket.gethostname()))


@dataclass(frozen=True, slots=True)
class _Held:
    lock: BaseFileLock

    def close(self) -> None:
        self.lock.release()


def _marker(path: Path) -> BaseFileLock:
    """Return the lock for a file system without locks: a file that exists while the lock is held."""
    from filelock import SoftFileLock

    return SoftFileLock(path)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Wait for the lock of a file, and hold it for a short work. Raises ConfigError if it cannot be locked."""
    try:
        lock = FileLock(path) if supports_flock(path.parent) else _marker(path)
        lock.acquire()
    except OSError as reason:
        raise lock_error(reason, path.parent) from None
    with contextlib.closing(_Held(lock)):
        yield


def lock_error(reason: OSError, folder: Path) -> ConfigError:
    """Return the error that says why a folder cannot be locked; a file system without locks is named."""
    what = f"{folder} cannot be locked: {reason.strerror or reason}"
    return ConfigError(f"{what}; {NO_LOCKS_HINT}" if reason.errno in _NO_LOCKS else what)


def find_owner(folder: Path, connection: sqlite3.Connection) -> LockOwner | None:
    """Return the process that holds the lock of the folder, None if none does.

    The lock is tried only if the last owner may be alive, so that a run that starts rarely finds it taken by us.
    """
    row = connection.execute("SELECT * FROM holder").fetchone()
    if row is None or _is_dead(row):
        return None
    owner = LockOwner(f"process {row['pid']} on {row['host']}", row["started_at"])
    try:
        if not supports_flock(folder):
            return owner if (folder / RUN_LOCK_FILE).exists() else None
        lock = FileLock(folder / RUN_LOCK_FILE)
        lock.acquire(blocking=False)
    except (Timeout, OSError):
        return owner
    lock.release()
    return owner if _is_at_work(row) else None  # its lock file was deleted


def _acquire(folder: Path, connection: sqlite3.Connection, warn: Callable[[str], object]) -> BaseFileLock:
    """Acquire the lock, or else the marker, and record this process as its owner. Raises Timeout and OSError."""
    lock: BaseFileLock
    if supports_flock(folder):
        lock = FileLock(folder / RUN_LOCK_FILE)
        lock.acquire(blocking=False)
        try:
            with transaction(connection):
                _refuse_second(folder, connection)
                _record_owner(connection)
        except BaseException:
            lock.release()
            raise
        return lock
    warn(f"{folder} cannot be locked: {NO_LOCKS_HINT}; until then, start no second run on it from another machine")
    lock = _marker(folder / RUN_LOCK_FILE)
    with transaction(connection):  # so that of two processes that find a dead owner, one takes over
        row = connection.execute("SELECT * FROM holder").fetchone()
        if row is None or _is_dead(row):
            (folder / RUN_LOCK_FILE).unlink(missing_ok=True)
        lock.acquire(blocking=False)
        _record_owner(connection)
    return lock


def _refuse_second(folder: Path, connection: sqlite3.Connection) -> None:
    """Raise Timeout if the recorded owner is at work: then the lock is free only since somebody deleted its file."""
    row = connection.execute("SELECT * FROM holder").fetchone()
    if row is not None and _is_at_work(row):
        raise Timeout(str(folder / RUN_LOCK_FILE))


def _record_owner(connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO holder VALUES (1, ?, ?, ?)", (os.getpid(), socket.gethostname(), time.time())
    )


def supports_flock(folder: Path) -> bool:
    """Return whether the file system of a folder supports locks, tried on a file of its own. Raises OSError."""
    if sys.platform == "win32":
        return True
    error = None
    with contextlib.suppress(OSError), tempfile.TemporaryFile(dir=folder) as file:  # a full disk has locks all the same
        error = _flock_error(file)
    if error is not None and error.errno not in _UNSUPPORTED:
        raise error
    return error is None


def _flock_error(file: IO[bytes]) -> OSError | None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as reason:
        return reason
    return None


def _is_dead(row: sqlite3.Row) -> bool:
    """Return whether the recorded owner is a process of this machine that no longer exists."""
    return bool(row["host"] == socket.gethostname()) and not is_alive(row["pid"])


def _is_at_work(row: sqlite3.Row) -> bool:
    """Return whether the recorded owner is certainly another process of this machine that lives.

    A process that started after the record was made only has the same id.
    """
    if row["host"] != socket.gethostname() or row["pid"] == os.getpid():
        return False
    started = started_at(row["pid"])
    return started is not None and started <= row["started_at"] + _CLOCK_SECONDS
