"""One output folder: its ledger opened, and the folder held by one run at a time."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from pipeline.errors import BadInput, ConfigError, FolderBusy
from pipeline.ledger.database import FILE_NAME, named_errors, open_ledger, transaction
from pipeline.storage import IMAGES_FOLDER, PART

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

LOCK_FILE = "run.lock"


@dataclass(frozen=True, slots=True)
class LockOwner:
    """The process that works on a folder."""

    who: str
    started_at: float


@contextlib.contextmanager
def opened(folder: Path, names: Sequence[str] = ()) -> Iterator[sqlite3.Connection]:
    """Open the ledger. Where jobs are named that cannot be in it, since there is none, none is made."""
    if names and not (folder / FILE_NAME).exists():
        raise BadInput(f"there is no job `{names[0]}`; nothing has been submitted to {folder} yet")
    with contextlib.closing(open_ledger(folder)) as connection, named_errors(folder / FILE_NAME):
        yield connection


@contextlib.contextmanager
def run_lock(folder: Path, connection: sqlite3.Connection, otherwise: Callable[[], object]) -> Iterator[None]:
    """Hold the folder for a working run. Where another does, do `otherwise` and raise FolderBusy that names it."""
    lock = FileLock(folder / LOCK_FILE)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock.acquire(blocking=False))
        except Timeout:
            otherwise()
            row = connection.execute("SELECT * FROM holder").fetchone()
            who = f"process {row['pid']} on {row['host']}" if row else "another process"
            what = f"{who} is working on {folder}: it takes up what is queued, or wait until it ends"
            raise FolderBusy(what) from None
        except OSError as reason:
            raise ConfigError(f"{folder} cannot be locked: {reason.strerror or reason}") from None
        with transaction(connection):
            connection.execute(
                "INSERT OR REPLACE INTO holder VALUES (1, ?, ?, ?)",
                (os.getpid(), socket.gethostname(), time.time()),
            )
        for part in folder.glob(f"*/{IMAGES_FOLDER}/.*{PART}"):  # half a picture, of a run that was killed
            part.unlink(missing_ok=True)
        yield


def find_owner(folder: Path, connection: sqlite3.Connection) -> LockOwner | None:
    """Give the process that works on the folder now; None where none does.

    The lock is tried only where that process may be alive, so that it is not taken for a moment from one that begins.
    """
    row = connection.execute("SELECT * FROM holder").fetchone()
    if row is None or (row["host"] == socket.gethostname() and not _lives(row["pid"])):
        return None
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(blocking=False)
    except (Timeout, OSError):
        return LockOwner(f"process {row['pid']} on {row['host']}", row["started_at"])
    lock.release()
    return None


def _lives(pid: int) -> bool:
    if os.name == "nt":  # where signal 0 ends a process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
