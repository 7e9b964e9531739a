"""The last stop of each job, provider, model and operation: recorded when it occurs, and read until it is overcome.

A stop is overcome by an answered call that was recorded after it and that it would have reached, or if nothing that it
reaches is queued any more. That a batch is gone is overcome when no batch of that time is out any more.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.ledger.outages import clear_outages

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection

    from pipeline.errors import Stop
    from pipeline.ledger.queue import Block


@dataclass(frozen=True, slots=True)
class RecordedStop:
    """A stop that still holds: its error's class, what was said, when, and what it reaches (None: any)."""

    kind: str
    message: str
    stopped_at: float  # seconds since 1970
    provider: str | None
    job: str | None
    model: str | None
    served_by: str | None

    @property
    def reach(self) -> str:
        """What the stop reaches, in words."""
        words = [
            f"job `{self.job}`" if self.job is not None else "",
            f"provider `{self.provider}`" if self.provider is not None else "",
            f"model `{self.model}`" if self.model is not None else "",
            f"{self.served_by}s" if self.served_by is not None else "",
        ]
        return ", ".join(word for word in words if word) or "everything"


def record_stop(connection: sqlite3.Connection, block: Block, error: Stop, now: float | None = None) -> None:
    """Record what stopped the requests that `block` covers, in place of what stopped the same requests before."""
    reach = (block.provider, block.job_pk, block.model, block.served_by)
    connection.execute(
        "DELETE FROM stop WHERE provider IS ? AND job IS ? AND model IS ? AND served_by IS ?",
        reach,
    )
    connection.execute(
        "INSERT INTO stop (provider, job, model, served_by, kind, message, http_status, stopped_at, last_attempt)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, (SELECT coalesce(max(pk), 0) FROM attempt))",
        (*reach, type(error).__name__, error.message, error.http_status, time.time() if now is None else now),
    )
    if reach[1:] == (None, None, None):  # then it is not tried again
        clear_outages(connection, block.provider)


_AT = "(s.provider IS NULL OR s.provider = j.provider OR s.provider IN (SELECT value FROM json_each(j.members)))"
_COVERS = (
    "(s.job IS NULL OR s.job = j.pk)"
    " AND (s.model IS NULL OR s.model = json_extract(r.params, '$.model'))"
    " AND (s.served_by IS NULL OR s.served_by = r.served_by)"
)
_HOLDS_FOR_QUEUED = (
    "EXISTS (SELECT 1 FROM job j JOIN request r ON r.job = j.pk AND r.stated = j.revision AND r.status = 'pending'"
    f" WHERE {_AT} AND {_COVERS} AND (?1 IS NULL OR j.name IN (SELECT value FROM json_each(?1))))"
    " AND NOT EXISTS (SELECT 1 FROM attempt a JOIN request r ON r.pk = a.request JOIN job j ON j.pk = r.job"
    f" WHERE a.pk > s.last_attempt AND a.outcome = 'answered'"
    f" AND (s.provider IS NULL OR s.provider = a.provider) AND {_COVERS})"
)
_HOLDS_FOR_BATCHES = (
    "EXISTS (SELECT 1 FROM batch b JOIN job j ON j.pk = b.job WHERE b.ended_at IS NULL AND b.created_at <= s.stopped_at"
    " AND (s.provider IS NULL OR s.provider = b.provider) AND (s.job IS NULL OR s.job = j.pk)"
    " AND (?1 IS NULL OR j.name IN (SELECT value FROM json_each(?1))))"
)
_HOLDS = f"CASE s.kind WHEN 'BatchGone' THEN {_HOLDS_FOR_BATCHES} ELSE {_HOLDS_FOR_QUEUED} END"


def read_stops(connection: sqlite3.Connection, jobs: Collection[str] | None = None) -> list[RecordedStop]:
    """Return the stops that hold for queued requests of these jobs, or of all, the oldest first."""
    rows = connection.execute(
        "SELECT kind, message, stopped_at, provider, (SELECT name FROM job WHERE pk = s.job), model, served_by"
        f" FROM stop s WHERE {_HOLDS} ORDER BY stopped_at, pk",
        (None if jobs is None else json.dumps(list(jobs)),),
    )
    return [RecordedStop(*row) for row in rows]


def delete_overcome_stops(connection: sqlite3.Connection) -> None:
    """Delete the stops that hold no longer, as at the end of a run. Runs inside a transaction of the caller."""
    connection.execute(f"DELETE FROM stop AS s WHERE NOT ({_HOLDS})", (None,))
