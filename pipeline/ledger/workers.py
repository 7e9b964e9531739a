"""The workers of a run on other machines, for `status`, and until when they may send calls if the run is killed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pipeline.ledger.database import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

LEASE_SECONDS = 5.0
"""How long a worker may send calls after the run last said that it is there."""


class WorkerRow(NamedTuple):
    """One worker of the run at work: the calls that it has made, and the images that it has stored."""

    id: int
    node: str
    pid: int
    calls: int
    images: int


def record_workers(connection: sqlite3.Connection, workers: Sequence[WorkerRow], until: float) -> None:
    """Record the workers of the run, each of which may send calls `until` this moment, in place of the last record."""
    with transaction(connection):
        connection.execute("DELETE FROM worker")
        connection.executemany("INSERT INTO worker VALUES (?, ?, ?, ?, ?)", workers)
        connection.execute("DELETE FROM worker_lease")
        connection.execute("INSERT INTO worker_lease VALUES (?)", (until,))


def forget_workers(connection: sqlite3.Connection) -> None:
    """Record that there are no workers any more."""
    with transaction(connection):
        connection.execute("DELETE FROM worker")
        connection.execute("DELETE FROM worker_lease")


def read_workers(connection: sqlite3.Connection) -> list[WorkerRow]:
    """Return the workers of the run at work, or of one that was killed."""
    return [
        WorkerRow(*row) for row in connection.execute("SELECT id, node, pid, calls, images FROM worker ORDER BY id")
    ]


def leases_end(connection: sqlite3.Connection) -> float:
    """Return until when workers of a run that was killed may send calls; 0 if none may."""
    row = connection.execute("SELECT max(until) FROM worker_lease").fetchone()
    return float(row[0] or 0.0)
