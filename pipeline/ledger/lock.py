"""The lock of an output folder: one working run at a time, and who that is."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from pipeline.errors import ConfigError, FolderBusy
from pipeline.ledger.database import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pipeline.storage import ImageStore

LOCK_FILE = "run.lock"


@dataclass(frozen=True, slots=True)
class LockOwner:
    """The process that holds the lock; `who` names it with its host, `started_at` is in seconds since 1970."""

    who: str
    started_at: float


@contextlib.contextmanager
def run_lock(
    folder: Path, images: ImageStore, connection: sqlite3.Connection, if_busy: Callable[[], object]
) -> Iterator[None]:
    """Hold the lock of an output folder, and delete the half-written images that a killed run left in it.

    If another process holds it, call `if_busy` and raise FolderBusy that names the process. Raises ConfigError if the
    folder cannot be locked.
    """
    lock = FileLock(folder / LOCK_FILE)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock.acquire(blocking=False))
        except Timeout:
            if_busy()
            row = connection.execute("SELECT * FROM holder").fetchone()
            who = f"process {row['pid']} on {row['host']}" if row else "another process"
            what = f"{who} is working on {folder}: it processes what is queued, or wait until it ends"
            raise FolderBusy(what) from None
        except OSError as reason:
            raise ConfigError(f"{folder} cannot be locked: {reason.strerror or reason}") from None
        with transaction(connection):
            connection.execute(
                "INSERT OR REPLACE INTO holder VALUES (1, ?, ?, ?)",
                (os.getpid(), socket.gethostname(), time.time()),
            )
        for name in images.leftovers():
            images.delete(name)
        yield


def find_owner(folder: Path, connection: sqlite3.Connection) -> LockOwner | None:
    """Return the process that holds the lock of the folder, None if none does.

    The lock is tried only if the last owner may be alive, so that a run that starts rarely finds it taken by us.
    """
    row = connection.execute("SELECT * FROM holder").fetchone()
    if row is None or (row["host"] == socket.gethostname() and not _is_alive(row["pid"])):
        return None
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(blocking=False)
    except (Timeout, OSError):
        return LockOwner(f"process {row['pid']} on {row['host']}", row["started_at"])
    lock.release()
    return None


def _is_alive(pid: int) -> bool:
    if os.name == "nt":  # there, signal 0 ends the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
