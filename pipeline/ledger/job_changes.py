"""Renames a job and takes a job out of the ledger: rows first, with a note of what is to become of its folders.

The note is in the same transaction as the rows. The next process that opens the ledger to write finishes what a kill
has left, so a folder is never without its job for longer. Only for the process that holds the folder's lock.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import BadInput, ConfigError, DiskFull, PipelineError
from pipeline.files import disk_error, sync_folder
from pipeline.ledger.attempts import record_pause
from pipeline.ledger.database import transaction
from pipeline.ledger.spooled_images import known_roots
from pipeline.planning.job import find_name_fault

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Mapping

    from pipeline.stores import Stores
    from pipeline.stores.object_store import RemoteStore


def rename_job(connection: sqlite3.Connection, old: str, new: str, stores: Stores) -> None:
    """Change the name of a job, and that of its folder in each of its stores. Raises BadInput and ConfigError.

    No file has a claim to the new name until one that states it is submitted: the old file still states the old one.
    """
    if fault := find_name_fault(new):
        raise BadInput(fault)
    roots = known_roots(connection, old)
    if old.lower() != new.lower():
        _check_free(connection, new, stores.roots(roots)[0])
    with transaction(connection):
        connection.execute(
            "DELETE FROM request WHERE job = (SELECT pk FROM job WHERE name = ? AND revision = 0)", (new,)
        )
        connection.execute("DELETE FROM job WHERE name = ? AND revision = 0", (new,))  # of a submit that died
        connection.execute("UPDATE job SET name = ?, file = NULL WHERE name = ?", (new, old))
        _note_change(connection, old, new, roots)
    finish_folder_changes(connection, stores)


def _note_change(connection: sqlite3.Connection, folder: str, target: str | None, roots: Iterable[str]) -> None:
    """Note what is to become of a job's folder: the local ones below the output and `images`, and below each root."""
    connection.executemany(
        "INSERT INTO folder_change (folder, target, root) VALUES (?, ?, ?)",
        [(folder, target, root) for root in (None, *roots)],
    )


def _check_free(connection: sqlite3.Connection, name: str, roots: Iterable[Path]) -> None:
    row = connection.execute("SELECT name FROM job WHERE name = ? AND revision > 0", (name,)).fetchone()
    if row is not None:
        raise BadInput(f"there is a job `{row[0]}` already; choose another name, or `pipeline forget {row[0]}` first")
    for root in roots:
        if (root / name).exists():
            raise BadInput(f"{root / name} exists already; move it away, or choose another name")


def forget_job(
    connection: sqlite3.Connection, name: str, stores: Stores, windows: Mapping[str, float], *, files: bool
) -> None:
    """Delete everything that the ledger has of a job, and with `files` its folder in each of its stores.

    `windows` are the seconds of each provider's rate limit: a provider that was called in its window pauses until the
    calls, of which the ledger no longer knows, are out of it. Raises BadInput while batches of the job are living.
    """
    _check_no_batches(connection, name)
    roots = known_roots(connection, name)
    with _without_foreign_keys(connection), transaction(connection):
        (job_pk,) = connection.execute("SELECT pk FROM job WHERE name = ?", (name,)).fetchone()
        for provider, seconds in windows.items():
            _pause_after_newest_call(connection, job_pk, provider, seconds)
        own = "request IN (SELECT pk FROM request WHERE job = ?)"
        for statement in (
            *(f"DELETE FROM {table} WHERE {own}" for table in ("quarantine", "image", "attempt")),
            *(f"DELETE FROM {table} WHERE job = ?" for table in ("batch", "other_key", "home", "request", "stop")),
            "DELETE FROM job WHERE pk = ?",
        ):
            connection.execute(statement, (job_pk,))
        connection.execute(  # primary keys that are free now will be used again
            "UPDATE stop SET last_attempt = min(last_attempt, (SELECT coalesce(max(pk), 0) FROM attempt))"
        )
        if files:
            _note_change(connection, name, None, roots)
    finish_folder_changes(connection, stores)


def _count_living(connection: sqlite3.Connection, name: str) -> int:
    (number,) = connection.execute(
        "SELECT count(*) FROM batch WHERE ended_at IS NULL AND job = (SELECT pk FROM job WHERE name = ?)", (name,)
    ).fetchone()
    return int(number)


def _check_no_batches(connection: sqlite3.Connection, name: str) -> None:
    number = _count_living(connection, name)
    if number:
        out = "a batch is" if number == 1 else f"{number:,} batches are"
        raise BadInput(f"{out} out for job `{name}`, and may be paid; cancel it first: pipeline cancel {name}")


def _pause_after_newest_call(connection: sqlite3.Connection, job_pk: int, provider: str, seconds: float) -> None:
    (sent_at,) = connection.execute(
        "SELECT max(a.sent_at) FROM attempt a JOIN request r ON r.pk = a.request"
        " WHERE a.provider = ? AND r.job = ? AND a.outcome IS NOT 'not_sent' AND a.batch IS NULL",
        (provider, job_pk),
    ).fetchone()
    if sent_at is not None and sent_at + seconds > time.time():
        record_pause(connection, provider, min(sent_at, time.time()) + seconds)


@contextlib.contextmanager
def _without_foreign_keys(connection: sqlite3.Connection) -> Iterator[None]:
    """Check no foreign keys in the with-block: without an index each deleted attempt would read all images."""
    connection.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        connection.execute("PRAGMA foreign_keys = ON")


def finish_folder_changes(connection: sqlite3.Connection, stores: Stores) -> None:
    """Move and delete the folders that the ledger has noted, and then the notes; a kill in between changes nothing.

    Raises DiskFull and ConfigError if a folder cannot be moved, each time until it can be; if one cannot be deleted,
    once.
    """
    changes = connection.execute("SELECT pk, folder, target, root FROM folder_change ORDER BY pk").fetchall()
    for change_pk, folder, target, root in changes:
        reason: PipelineError | None = None
        folders, remotes = stores.roots(() if root is None else (root,))
        for place in folders if root is None or not remotes else remotes:
            try:
                _change_place(place, folder, target)
            except (DiskFull, ConfigError) as error:
                if target is not None:
                    raise
                reason = error
        connection.execute("DELETE FROM folder_change WHERE pk = ?", (change_pk,))
        if reason is not None:
            raise reason


def _change_place(place: Path | RemoteStore, folder: str, target: str | None) -> None:
    """Move or delete the folder of a job in one place. Raises DiskFull and ConfigError."""
    if not isinstance(place, Path):
        place.move_job(folder, target)
        return
    try:
        _change_folder(place, folder, target)
    except OSError as error:
        raise disk_error(error, place / folder) from None


def _change_folder(root: Path, folder: str, target: str | None) -> None:
    if not (root / folder).exists():
        return
    with contextlib.suppress(FileNotFoundError):  # another process finishes the same
        if target is None:
            shutil.rmtree(root / folder)
        else:
            _move(root / folder, root / target)
    sync_folder(root)


def _move(folder: Path, target: Path) -> None:
    """Move a folder, or what it holds if the target exists; what is there under the same name stays where it is."""
    if not target.exists() or folder.samefile(target):  # on some disks, names that differ in case are the same
        os.rename(folder, target)  # noqa: PTH104
    elif folder.is_dir() and target.is_dir():
        for path in folder.iterdir():
            _move(path, target / path.name)
        with contextlib.suppress(OSError):
            folder.rmdir()
