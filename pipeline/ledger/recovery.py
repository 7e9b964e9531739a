"""Requests that are at work no more and have not ended go back to the queue: after a stop, a kill, a power failure."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pipeline.errors import OutcomeUnknown
from pipeline.ledger.batch_lines import withdraw_unsent
from pipeline.ledger.database import transaction
from pipeline.ledger.error_kind import INTERRUPTED, error_json
from pipeline.ledger.outages import clear_outages
from pipeline.ledger.workers import forget_workers, leases_end

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

_SENT_LATE = 1.0  # seconds that may pass between recording a call and sending its first byte

_RETURNED = """status = CASE WHEN cancel_asked THEN 'cancelled' ELSE 'pending' END,
 finished_at = CASE WHEN cancel_asked THEN :now ELSE finished_at END"""
"""What becomes of a running request that has not ended."""


def recover(connection: sqlite3.Connection, now: float | None = None) -> int:
    """Recover from a stop, a kill or a power failure; return the number of calls whose outcome is unknown.

    Only for the process that holds the folder's lock. A call without an outcome may have been sent up to `_SENT_LATE`
    seconds after it was written down, and may have been billed. One that a worker on another machine had may have
    been sent until now: the caller has waited until `leases_end`.
    """
    now = time.time() if now is None else now
    late = leases_end(connection)
    with transaction(connection):
        lost = requeue_running(connection, now, now if late else None)
    if late:
        forget_workers(connection)
    return lost


def requeue_running(connection: sqlite3.Connection, now: float, sent_at: float | None = None) -> int:
    """Do what `recover` does, within a transaction that is open already. What is in a living batch stays running.

    `sent_at` is when calls of unknown outcome were sent at the latest, if their workers could send them later.
    """
    withdraw_unsent(connection, now)
    clear_outages(connection)
    connection.execute(
        "UPDATE request SET (maybe_paid, cut_off) = (SELECT maybe_paid + count(*), count(*) FROM attempt"
        " WHERE attempt.request = request.pk AND attempt.outcome IS NULL AND attempt.batch IS NULL)"
        " WHERE pk IN (SELECT request FROM attempt WHERE outcome IS NULL AND batch IS NULL)"
    )
    lost = connection.execute(
        "UPDATE attempt SET outcome = 'unknown', ended_at = ?1,"
        " sent_at = max(sent_at, coalesce(?3, min(?1, sent_at + ?2))), error = ?4"
        " WHERE outcome IS NULL AND batch IS NULL",
        (now, _SENT_LATE, sent_at, error_json(OutcomeUnknown("the run died during this call", type=INTERRUPTED))),
    ).rowcount
    connection.execute(
        f"UPDATE request SET {_RETURNED} WHERE status = 'running'"
        " AND NOT EXISTS (SELECT 1 FROM attempt a WHERE a.request = request.pk AND a.outcome IS NULL)",
        {"now": now},
    )
    return lost


def requeue(connection: sqlite3.Connection, request_pk: int) -> None:
    """Return a running request to the queue, unless it has gone by batch meanwhile; cancel it if that was asked for."""
    connection.execute(
        f"UPDATE request SET {_RETURNED} WHERE pk = :pk AND status = 'running' AND NOT EXISTS"
        " (SELECT 1 FROM attempt WHERE request = :pk AND outcome IS NULL AND batch IS NOT NULL)",
        {"pk": request_pk, "now": time.time()},
    )


def requeue_lost_images(connection: sqlite3.Connection, image_pks: Iterable[int]) -> None:
    """Record that these images are no longer on disk, and queue their requests again for what is missing.

    An image that is made again, or was, is missed by no request.
    """
    with transaction(connection):
        for image_pk in image_pks:
            row = connection.execute(
                "SELECT request, redo FROM image WHERE pk = ? AND state = 'stored'", (image_pk,)
            ).fetchone()
            if row is None:  # another process has repaired it meanwhile
                continue
            connection.execute(
                "UPDATE image SET state = 'lost', file = NULL, spooled = 0, redo = NULL WHERE pk = ?", (image_pk,)
            )
            if row["redo"] is None:
                connection.execute(
                    "UPDATE request SET received = received - 1, finished_at = NULL, status = CASE"
                    " WHEN received - 1 < n AND status IN ('succeeded', 'partial') THEN 'pending' ELSE status END"
                    " WHERE pk = ?",
                    (row["request"],),
                )
