"""The queue of batches: which pending requests may share a batch, and which come next.

Functions run inside a transaction of the caller, such as `Writer.do`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.ledger.queue import Block, not_beyond, read_queued

if TYPE_CHECKING:
    import sqlite3

    from pipeline.ledger.queue import QueuedRequest, Scope

_NO_URL = " AND NOT EXISTS (SELECT 1 FROM image i WHERE i.request = r.pk AND i.state = 'paid')"


def next_of_group(
    connection: sqlite3.Connection, group: Block, scope: Scope, limit: int, *, is_first: bool
) -> list[QueuedRequest]:
    """Return up to `limit` pending requests of a group that may share a batch, in the order of the job.

    With `is_first`, only those of which no line has been in a batch. Those with paid URLs are left to be downloaded.
    """
    first = (
        " AND NOT EXISTS (SELECT 1 FROM attempt a WHERE a.request = r.pk AND a.batch IS NOT NULL"
        " AND a.outcome IS NOT 'not_sent')"
    )
    rows = connection.execute(
        "SELECT r.pk FROM job j JOIN request r ON r.job = j.pk AND r.stated = j.revision WHERE j.pk = ?1"
        f" AND r.status = 'pending' AND r.served_by = ?2 AND json_extract(r.params, '$.model') IS ?3{_NO_URL}"
        f"{first if is_first else ''}{not_beyond(scope)} ORDER BY r.position LIMIT ?4",
        (group.job_pk, group.served_by, group.model, limit),
    )
    return read_queued(connection, [row[0] for row in rows], group.provider)


def pending_groups(connection: sqlite3.Connection, job_pk: int, scope: Scope) -> list[tuple[Block, int]]:
    """Return the groups of a job's pending requests that may share a batch, each with its number of requests."""
    rows = connection.execute(
        "SELECT j.provider, r.served_by, json_extract(r.params, '$.model'), count(*)"
        " FROM job j JOIN request r ON r.job = j.pk AND r.stated = j.revision"
        f" WHERE j.pk = ?1 AND r.status = 'pending'{_NO_URL}{not_beyond(scope)}"
        " GROUP BY 2, 3 ORDER BY min(r.position)",
        (job_pk,),
    )
    return [(Block(provider, job_pk, model, served_by), count) for provider, served_by, model, count in rows]
