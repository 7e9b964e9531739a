"""What waits in the queue: the providers and routes that have pending requests, and how many requests there are.

Functions run inside a transaction of the caller, such as `Writer.do`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.ledger.queue import IN_SCOPE, matches, may_be_realtime, not_beyond, not_blocked, scope_values

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection

    from pipeline.ledger.queue import Block, Scope


def waiting_providers(
    connection: sqlite3.Connection,
    scope: Scope,
    blocked: Collection[Block] = (),
    realtime: Collection[Block] = (),
) -> list[str]:
    """Return the names of the providers that have pending requests; of jobs that go by batch, those in `realtime`."""
    names, since = scope_values(scope)
    allowed = f"{not_beyond(scope)}{not_blocked(blocked)}"
    rows = connection.execute(
        f"SELECT DISTINCT j.provider FROM job j WHERE {IN_SCOPE} AND {may_be_realtime(realtime)}"
        " AND EXISTS (SELECT 1 FROM request r WHERE r.job = j.pk AND r.status = 'pending' AND r.stated = j.revision"
        f"{allowed} AND (j.mode = 'realtime' OR {matches(realtime)}))"
        " UNION SELECT j.provider FROM image i JOIN request r ON r.pk = i.request JOIN job j ON j.pk = r.job"
        " WHERE i.state = 'paid' AND r.status = 'pending' AND r.stated = j.revision AND j.mode != 'realtime'"
        f" AND {IN_SCOPE}{allowed}",
        (None, names, since),
    )
    return [row[0] for row in rows]


def count_pending(connection: sqlite3.Connection, scope: Scope) -> int:
    """Count the requests that a run of this scope is still to work on."""
    names, since = scope_values(scope)
    row = connection.execute(
        "SELECT count(*) FROM job j JOIN request r ON r.job = j.pk AND r.stated = j.revision"
        f" WHERE r.status = 'pending' AND {IN_SCOPE}{not_beyond(scope)}",
        (None, names, since),
    ).fetchone()
    return int(row[0])
